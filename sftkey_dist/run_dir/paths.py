"""All paths that a run writes, one property each."""

import datetime
import re
import secrets
from pathlib import Path

from sftkey_dist.errors import DataError
from sftkey_dist.files import read_text, write_text_atomically

MASTERS_MANIFEST = "manifest.json"
"""Written last in a folder of master weights, so that it marks them as complete."""
_MOST_CHARACTERS_OF_NAME = 40
_RESTORE = "restore it from a copy, because the existing content of the run depends on it"


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


class SamplesDir:
    """The folder of the responses that a model generated for a later stage to train on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def judged(self, digest: str) -> "JudgedSamplesDir":
        """What was made of them, named by the digest of how they were judged and encoded."""
        return JudgedSamplesDir(self.path / digest[:12])


class JudgedSamplesDir:
    """The folder of what a stage trains on in place of the references."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def rows(self) -> Path:
        """What became of the samples of each row, one JSON object each."""
        return self.path / "rows.jsonl"

    @property
    def yielded(self) -> Path:
        """How many samples were accepted."""
        return self.path / "yield.json"

    @property
    def store(self) -> Path:
        """Encoded store of the stage."""
        return self.path / "store"


class RunDir:
    """The folder of a whole run."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @property
    def lock(self) -> Path:
        """Lock of the one command that may write to the run."""
        return self.path / ".lock"

    @property
    def data_report(self) -> Path:
        """Rows kept, rows dropped by reason, and lengths per segment."""
        return self.path / "data_report.json"

    @property
    def data_rows(self) -> Path:
        """Every row that was dropped, or that a person should look at, one JSON object each."""
        return self.path / "data_rows.jsonl"

    @property
    def environment(self) -> Path:
        """Versions, commit and machine of the run."""
        return self.path / "environment.json"

    def length_plot(self, form: str) -> Path:
        """Plot of the lengths per segment of the training set in one form."""
        return self.path / f"data_lengths_{form}.svg"

    @property
    def plan(self) -> Path:
        """Balance of every stage's steps by number of ranks. Plots are next to it."""
        return self.path / "plan.json"

    @property
    def capacity(self) -> Path:
        """Capacity estimate of every stage on a cluster."""
        return self.path / "capacity.json"

    def base_model(self, digest: str) -> Path:
        """Folder of a base model that the run creates, such as the embedded model."""
        return self.path / f"base_model-{digest[:12]}"

    def identity(self) -> str:
        """A unique name of the run directory, which does not change when the directory is moved or renamed. It is
        created on first use."""
        file = self.path / "identity"
        if not file.is_file():
            name = re.sub(r"[^A-Za-z0-9_]", "_", self.path.name)[:_MOST_CHARACTERS_OF_NAME]
            write_text_atomically(file, f"{name}-{secrets.token_hex(4)}")
        identity = read_text(file, _RESTORE).strip()
        if not re.fullmatch(r"[A-Za-z0-9_-]+", identity):
            raise DataError(f"{file}: contains no identity; {_RESTORE}")
        return identity

    def first_prepared(self) -> datetime.date:
        """The day on which the run was first prepared. It is recorded on first use."""
        file = self.path / "first_prepared"
        if not file.is_file():
            write_text_atomically(file, datetime.date.today().isoformat())
        try:
            return datetime.date.fromisoformat(read_text(file, _RESTORE).strip())
        except ValueError:
            raise DataError(f"{file}: contains no date; {_RESTORE}") from None

    @property
    def ray_storage(self) -> Path:
        """Files that Ray Train and Ray Tune always write; nothing reads them."""
        return self.path / "ray"

    @property
    def tuning(self) -> Path:
        """The trials of a tuning, of which this is the folder."""
        return self.path / "tune.json"

    @property
    def tracking(self) -> Path:
        """MLflow run ids, so that a resumed run continues them."""
        return self.path / "tracking.json"

    @property
    def wandb_runs(self) -> Path:
        """Ids of W&B runs and what was sent to them, so that a resumed run continues them."""
        return self.path / "wandb.json"

    @property
    def strategies(self) -> Path:
        """The stages and the evaluation of each strategy."""
        return self.path / "strategies.json"

    def stage(self, label: str, digest: str) -> StageDir:
        """A stage's folder, named by a label and by the digest of its inputs. It is found by the digest alone."""
        stages = self.path / "stages"
        found = sorted(stages.glob(f"*-{digest[:12]}"))
        return StageDir(found[0] if found else stages / f"{label}-{digest[:12]}")

    def stages(self) -> list[StageDir]:
        """The folders of all stages in the run directory."""
        return [StageDir(path) for path in sorted((self.path / "stages").glob("*")) if path.is_dir()]

    def samples(self, digest: str) -> SamplesDir:
        """The responses of a model to the training rows, named by the digest of what they depend on."""
        return SamplesDir(self.path / "samples" / digest[:12])

    def evaluation(self, strategy: str, digest: str) -> Path:
        """Folder of an evaluation of a strategy, named by the strategy and by the digest of the generations' inputs."""
        return self.path / "evaluation" / f"{strategy}-{digest[:12]}"

    @property
    def capabilities(self) -> Path:
        """Which results of the capability check belong to the run. The results are in a folder beside it."""
        return self.path / "capabilities.json"

    @property
    def diagnosis(self) -> Path:
        """Findings about each strategy's outputs."""
        return self.path / "diagnosis.json"

    @property
    def comparison(self) -> Path:
        """The comparison's JSON file. Its Markdown file and plots are next to it."""
        return self.path / "comparison.json"

    @property
    def comparison_files(self) -> list[Path]:
        """All existing files of the comparison."""
        return sorted(self.path.glob(f"{self.comparison.stem}*"))
