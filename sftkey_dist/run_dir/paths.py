"""Every path a run writes, one property each."""

import datetime
import re
import secrets
from pathlib import Path

from sftkey_dist.errors import DataError
from sftkey_dist.files import read_text, write_text_atomically

MASTERS_MANIFEST = "manifest.json"
"""Written last in a folder of master weights, so that it marks them as whole."""
_MOST_CHARACTERS_OF_NAME = 40
_RESTORE = "restore it from a copy: what the run holds already was made with it"


class ModelPlace:
    """A folder with a model that a stage hands on, and what belongs to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def model(self) -> Path:
        """A Hugging Face model folder."""
        return self.path / "model"

    @property
    def masters(self) -> Path:
        """The float32 weights that the model is rounded from, where a stage continues from them."""
        return self.path / "masters"

    @property
    def has_masters(self) -> bool:
        """Whether the float32 weights are there, all of them."""
        return (self.masters / MASTERS_MANIFEST).is_file()

    @property
    def rounding(self) -> Path:
        """What the stage changed in masters and in stored weights."""
        return self.path / "rounding.json"


class StageDir(ModelPlace):
    """The folder of one stage; its model is the stage's result."""

    @property
    def metrics(self) -> Path:
        """One JSON object an optimizer step; the same bytes whenever the same stage is run."""
        return self.path / "metrics.jsonl"

    @property
    def timings(self) -> Path:
        """Wall-clock figures of each step."""
        return self.path / "timings.jsonl"

    @property
    def validation(self) -> Path:
        """Measurements on held-out examples, one JSON object each; ``step`` counts the optimizer steps done."""
        return self.path / "validation.jsonl"

    @property
    def events(self) -> Path:
        """What happened that a person should know of, such as restarts; one JSON object each."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """What an interrupted stage goes on from, unless it lies in an object store."""
        return self.path / "checkpoints"

    @property
    def stop_request(self) -> Path:
        """While this file is there, the workers save a checkpoint after the step that they are at, and end."""
        return self.path / "stop_request"

    @property
    def heartbeats(self) -> Path:
        """Where each rank says now and then what it is at."""
        return self.path / "heartbeats"

    def heartbeat(self, rank: int) -> Path:
        """What a rank is at."""
        return self.heartbeats / f"rank_{rank:05d}.json"

    @property
    def candidates(self) -> Path:
        """Models that the guard may hand on, while the stage runs."""
        return self.path / "candidates"

    def candidate(self, steps_done: int) -> ModelPlace:
        """The model after so many steps."""
        return ModelPlace(self.candidates / f"step_{steps_done:08d}")

    @property
    def journals(self) -> tuple[Path, ...]:
        """All files that grow while the stage runs."""
        return self.metrics, self.timings, self.validation, self.events

    @property
    def trial_export(self) -> Path:
        """The model without its weights, for a moment before the first step."""
        return self.path / "trial_export"

    @property
    def summary(self) -> Path:
        """What the stage was and cost; written last, so it marks the stage as finished."""
        return self.path / "stage.json"


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
        """Held by the one command that may write to the run."""
        return self.path / ".lock"

    @property
    def data_report(self) -> Path:
        """Rows kept, dropped by reason, lengths per segment."""
        return self.path / "data_report.json"

    @property
    def environment(self) -> Path:
        """Versions, commit and machine that the run was made with."""
        return self.path / "environment.json"

    def length_plot(self, form: str) -> Path:
        """Picture of the lengths per segment of the training set in one form."""
        return self.path / f"data_lengths_{form}.svg"

    @property
    def plan(self) -> Path:
        """How level the steps of every stage lie, by number of ranks; pictures lie beside it."""
        return self.path / "plan.json"

    @property
    def capacity(self) -> Path:
        """What every stage would take on a cluster."""
        return self.path / "capacity.json"

    def base_model(self, digest: str) -> Path:
        """The embedded model, where one is made."""
        return self.path / f"base_model-{digest[:12]}"

    def identity(self) -> str:
        """A name that no other run directory has, and that stays when the directory is moved or renamed; made when
        first asked for."""
        file = self.path / "identity"
        if not file.is_file():
            name = re.sub(r"[^A-Za-z0-9_]", "_", self.path.name)[:_MOST_CHARACTERS_OF_NAME]
            write_text_atomically(file, f"{name}-{secrets.token_hex(4)}")
        identity = read_text(file, _RESTORE).strip()
        if not re.fullmatch(r"[A-Za-z0-9_-]+", identity):
            raise DataError(f"{file}: holds no identity; {_RESTORE}")
        return identity

    def first_prepared(self) -> datetime.date:
        """The day on which the run was first prepared; asked for only where it matters, and kept from then on."""
        file = self.path / "first_prepared"
        if not file.is_file():
            write_text_atomically(file, datetime.date.today().isoformat())
        try:
            return datetime.date.fromisoformat(read_text(file, _RESTORE).strip())
        except ValueError:
            raise DataError(f"{file}: holds no date; {_RESTORE}") from None

    @property
    def ray_storage(self) -> Path:
        """What Ray Train insists on writing; nothing is read from it."""
        return self.path / "ray"

    @property
    def tracking(self) -> Path:
        """MLflow run ids, so that a resumed run continues them."""
        return self.path / "tracking.json"

    @property
    def strategies(self) -> Path:
        """Which stages each strategy used."""
        return self.path / "strategies.json"

    def stage(self, label: str, digest: str) -> StageDir:
        """A stage's folder, named by what it is and by the digest of all it depends on; another label finds it too."""
        stages = self.path / "stages"
        found = sorted(stages.glob(f"*-{digest[:12]}"))
        return StageDir(found[0] if found else stages / f"{label}-{digest[:12]}")

    def stages(self) -> list[StageDir]:
        """The folders of all stages that are there."""
        return [StageDir(path) for path in sorted((self.path / "stages").glob("*")) if path.is_dir()]

    def evaluation(self, strategy: str, digest: str) -> Path:
        """Folder of one evaluation of a strategy, named also by the digest of all it depends on."""
        return self.path / "evaluation" / f"{strategy}-{digest[:12]}"

    @property
    def diagnosis(self) -> Path:
        """What is wrong with each strategy's outputs."""
        return self.path / "diagnosis.json"

    @property
    def comparison(self) -> Path:
        """The comparison's JSON file; .md and plots lie beside it."""
        return self.path / "comparison.json"

    @property
    def comparison_files(self) -> list[Path]:
        """All files of the comparison that are there."""
        return sorted(self.path.glob(f"{self.comparison.stem}*"))
