"""The conversation before a response, as judges and human reviewers read it."""

from sftkey_dist.data.example import Turn
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord


def conversation_of(record: EvaluationRecord) -> str:
    """The prompt, preceded by the earlier turns if there are any."""
    if not record.history:
        return record.prompt
    turns = [*record.history, Turn("user", record.prompt)]
    return "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in turns)
