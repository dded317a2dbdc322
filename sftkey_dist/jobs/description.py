"""What a job carries out: a run, or the many runs of a study or a tuning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sftkey_dist.config import load_trial
from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.study import Study
from sftkey_dist.config.tune import Tuning

JOB_CONFIG = "sftkey-job.yaml"
JOB_ADDRESS = "cluster.address=auto"
"""Override with which a command uses the cluster in which it runs."""


@dataclass(frozen=True)
class JobDescription:
    """What a job carries out. Only validated values are sent, so that paths mean the same on the cluster.

    Attributes:
        verb: command of `sftkey`.
        content: content of the configuration file that is sent.
        run_dir: folder that the job writes.
        configs: configurations that together name all files and folders of the job.
    """

    verb: str
    content: Mapping[str, Any]
    run_dir: Path
    configs: Sequence[RunConfig]

    @classmethod
    def of_run(cls, config: RunConfig, verb: str = "run") -> Self:
        """A run, or one part of it."""
        return cls(verb, config.model_dump(mode="json"), config.run_dir, (config,))

    @classmethod
    def of_study(cls, study: Study) -> Self:
        """All runs of a study. Each variant is sent with all its keys, those of the command line among them."""
        configs = {run.variant: run.config for run in reversed(study.runs)}
        settings = study.settings.model_dump(mode="json")
        for name, config in configs.items():
            settings["variants"][name]["config"] = config.model_dump(mode="json", exclude={"run_dir", "seed"})
        return cls("run", {"run_dir": str(study.folder), "study": settings}, study.folder, tuple(configs.values()))

    @classmethod
    def of_tuning(cls, tuning: Tuning) -> Self:
        """All trials of a tuning. The tuned keys name no files, so that any trial names those of all."""
        key, space = next(iter(tuning.settings.keys.items()))
        trial = load_trial(tuning, "trial", {key: space.listed[0]})
        settings = tuning.settings.model_dump(mode="json", exclude_unset=True)
        content = trial.model_dump(mode="json") | {"run_dir": str(tuning.folder), "tune": settings}
        return cls("tune", content, tuning.folder, (trial,))

    def arguments(self, *, allow_unauthenticated: bool) -> list[str]:
        """Arguments of the command that the job executes, on the cluster in which it runs."""
        allowance = ["cluster.allow_unauthenticated=true"] if allow_unauthenticated else []
        return [self.verb, JOB_CONFIG, JOB_ADDRESS, *allowance]
