"""All paths that an evaluation writes, one property each."""

from pathlib import Path


class EvaluationDir:
    """The folder of an evaluation of a strategy."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def generations(self) -> Path:
        """What the model generated for each prompt; a journal."""
        return self.path / "generations.jsonl"

    @property
    def records(self) -> Path:
        """Every output with its verdict."""
        return self.path / "records.jsonl"

    @property
    def scores(self) -> Path:
        """The scores, once outputs have been judged."""
        return self.path / "scores.json"

    @property
    def review(self) -> Path:
        """Outputs for a person to judge, and the verdicts of persons."""
        return self.path / "review.jsonl"

    @property
    def continuations(self) -> Path:
        """How the model continued responses with swapped reasoning; a journal."""
        return self.path / "swapped_reasoning.jsonl"

    @property
    def swapped_reasoning(self) -> Path:
        """What the answers follow when the reasoning is swapped."""
        return self.path / "swapped_reasoning.json"
