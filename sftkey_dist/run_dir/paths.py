"""All paths that a run writes, one property each; those of a stage and of an evaluation are in `stage_paths` and
`evaluation_paths`."""

import datetime
import re
import secrets
from pathlib import Path

from sftkey_dist.errors import DataError
from sftkey_dist.files import write_text_if_absent
from sftkey_dist.reading import read_text
from sftkey_dist.run_dir.stage_paths import StageDir

_MAX_CHARACTERS_OF_NAME = 40
_RESTORE = "restore it from a copy, because the existing content of the run depends on it"


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
            name = re.sub(r"[^A-Za-z0-9_]", "_", self.path.name)[:_MAX_CHARACTERS_OF_NAME]
            write_text_if_absent(file, f"{name}-{secrets.token_hex(4)}")
        identity = read_text(file, _RESTORE).strip()
        if not re.fullmatch(r"[A-Za-z0-9_-]+", identity):
            raise DataError(f"{file}: contains no identity; {_RESTORE}")
        return identity

    def first_prepared(self) -> datetime.date:
        """The day on which the run was first prepared. It is recorded on first use."""
        file = self.path / "first_prepared"
        if not file.is_file():
            write_text_if_absent(file, datetime.date.today().isoformat())
        try:
            return datetime.date.fromisoformat(read_text(file, _RESTORE).strip())
        except ValueError:
            raise DataError(f"{file}: contains no date; {_RESTORE}") from None

    @property
    def ray_storage(self) -> Path:
        """Files that Ray Train and Ray Tune always write; nothing reads them."""
        return self.path / "ray"

    @property
    def study(self) -> Path:
        """The description of a study, of which this is the folder."""
        return self.path / "study.json"

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
        return [StageDir(path) for path in sorted((self.path / "stages").glob("[!.]*")) if path.is_dir()]

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
