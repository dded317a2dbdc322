"""What a job carries out: a run, or the many runs of a study or a tuning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.study import Study
from sftkey_dist.config.tune import Tuning

JOB_CONFIG = "sftkey-job.yaml"


@dataclass(frozen=True)
class JobDescription:
    """What a job carries out.

    Attributes:
        verb: command of `sftkey`.
        content: content of the configuration file that is sent.
        overrides: `a.b=value` arguments that follow the file.
        run_dir: folder that the job writes.
        configs: configurations that together name all files and folders of the job.
    """

    verb: str
    content: Mapping[str, Any]
    overrides: Sequence[str]
    run_dir: Path
    configs: Sequence[RunConfig]

    @classmethod
    def of_run(cls, config: RunConfig, verb: str = "run") -> Self:
        """A run, or one part of it."""
        return cls(verb, config.model_dump(mode="json"), (), config.run_dir, (config,))

    @classmethod
    def of_study(cls, study: Study, content: Mapping[str, Any], overrides: Sequence[str]) -> Self:
        """All runs of a study.

        Args:
            study: the study.
            content: its merged files, which the job reads in their place.
            overrides: sent as they are, because they take precedence over the keys of a variant, and keys of a file do
                not.
        """
        return cls("run", content, overrides, study.folder, tuple(run.config for run in study.runs))

    @classmethod
    def of_tuning(cls, tuning: Tuning, trial: RunConfig, content: Mapping[str, Any], overrides: Sequence[str]) -> Self:
        """All trials of a tuning, of which any one names the files and folders, because those cannot be tuned."""
        return cls("tune", content, overrides, tuning.folder, (trial,))

    def arguments(self, *, allow_unauthenticated: bool) -> list[str]:
        """Arguments of the command that the job executes, on the cluster in which it runs."""
        allowance = ["cluster.allow_unauthenticated=true"] if allow_unauthenticated else []
        return [self.verb, JOB_CONFIG, *self.overrides, "cluster.address=auto", *allowance]
