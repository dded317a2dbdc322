"""All paths that a stage writes, one property each."""

from pathlib import Path

MASTERS_MANIFEST = "manifest.json"
"""Written last in a folder of master weights, so that it marks them as complete."""


class ModelPlace:
    """A folder with a model that a stage hands on, and the files that belong to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def model(self) -> Path:
        """A Hugging Face model folder."""
        return self.path / "model"

    @property
    def masters(self) -> Path:
        """The float32 weights from which the model is rounded, if a stage continues from them."""
        return self.path / "masters"

    @property
    def has_masters(self) -> bool:
        """Whether the float32 weights are there and complete."""
        return (self.masters / MASTERS_MANIFEST).is_file()

    @property
    def adapter(self) -> Path:
        """The adapter that the stage trained, which is merged into the model, as a folder of peft."""
        return self.path / "adapter"

    @property
    def rounding(self) -> Path:
        """What the stage changed in the master weights and in the stored weights."""
        return self.path / "rounding.json"


class StageDir(ModelPlace):
    """The folder of one stage; its model is the stage's result."""

    @property
    def metrics(self) -> Path:
        """One JSON object per optimizer step. Running the same stage again gives the same bytes."""
        return self.path / "metrics.jsonl"

    @property
    def timings(self) -> Path:
        """Wall-clock figures of each step."""
        return self.path / "timings.jsonl"

    @property
    def validation(self) -> Path:
        """Measurements on held-out examples, one JSON object each. ``step`` is the number of optimizer steps done."""
        return self.path / "validation.jsonl"

    @property
    def interpolations(self) -> Path:
        """Measurements of models between the start and the end of the stage, one JSON object each."""
        return self.path / "interpolations.jsonl"

    @property
    def events(self) -> Path:
        """Events that users should know about, such as restarts, one JSON object each."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints from which an interrupted stage resumes, unless they are in an object store."""
        return self.path / "checkpoints"

    @property
    def beginning(self) -> Path:
        """What the stage is about to do, such as its number of steps; written before its workers start."""
        return self.path / "begun.json"

    @property
    def stop_request(self) -> Path:
        """If this file exists, the workers save a checkpoint after the current step and stop."""
        return self.path / "stop_request"

    @property
    def heartbeats(self) -> Path:
        """Folder of the heartbeat files, in which each rank regularly reports its phase."""
        return self.path / "heartbeats"

    def heartbeat(self, rank: int) -> Path:
        """Heartbeat file of a rank."""
        return self.heartbeats / f"rank_{rank:05d}.json"

    @property
    def stacks(self) -> Path:
        """Folder of the stacks of ranks that hung."""
        return self.path / "stacks"

    def stack(self, rank: int) -> Path:
        """Stacks of a rank's threads, if it hung."""
        return self.stacks / f"rank_{rank:05d}.txt"

    def trace(self, rank: int, step: int) -> Path:
        """Trace of a step by torch's profiler."""
        return self.path / "traces" / f"rank_{rank:05d}_step_{step:08d}.json.gz"

    @property
    def candidates(self) -> Path:
        """Models that the guard may choose; they exist while the stage runs."""
        return self.path / "candidates"

    def candidate(self, steps_done: int, part: float = 1.0) -> ModelPlace:
        """The candidate model after this number of steps, with a part of the stage's update."""
        name = f"step_{steps_done:08d}"
        return ModelPlace(self.candidates / (name if part == 1 else f"{name}_part_{part!r}"))

    @property
    def journals(self) -> tuple[Path, ...]:
        """All files to which the stage appends while it runs."""
        return self.metrics, self.timings, self.validation, self.events, self.interpolations

    @property
    def anchor(self) -> Path:
        """Predictions of the model that the stage starts from; they exist while an anchored stage runs."""
        return self.path / "anchor"

    @property
    def trial_export(self) -> Path:
        """A trial export of the model without its weights, which exists only briefly before the first step."""
        return self.path / "trial_export"

    @property
    def summary(self) -> Path:
        """Summary of the stage and its cost. It is written last, so it marks the stage as finished."""
        return self.path / "stage.json"
