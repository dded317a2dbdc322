"""Plans the capability check of a run: the base model once, and the last model of every strategy."""

from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from sftkey_dist.config.evaluation import CapabilitiesConfig
from sftkey_dist.digests import digest_json
from sftkey_dist.evaluation.capabilities.fan_out import CapabilityJob
from sftkey_dist.evaluation.capabilities.harness import harness_version
from sftkey_dist.files import visible_files
from sftkey_dist.models.digests import known_digest
from sftkey_dist.pipeline.responding_model import renewal
from sftkey_dist.pipeline.run_plan import PlannedStrategy, RunPlan
from sftkey_dist.run_dir.artifacts.capabilities import CAPABILITY_FILES, CapabilityFiles, result_file
from sftkey_dist.run_dir.artifacts.training import read_summary

_BASE = "the base model"


@dataclass(frozen=True)
class CapabilityJobs:
    """The jobs of the base model and of each strategy's last model, whether they have a result or not."""

    base: list[CapabilityJob]
    strategies: dict[str, list[CapabilityJob]]

    @property
    def open(self) -> list[CapabilityJob]:
        """The jobs without a result. A model that several strategies end in is measured once."""
        jobs: dict[Path, CapabilityJob] = {}
        for job in chain(self.base, *self.strategies.values()):
            jobs.setdefault(job.file, job)
        return [job for job in jobs.values() if not job.is_done]


def plan_capabilities(plan: RunPlan) -> CapabilityJobs:
    """The jobs of a run; none if it measures no capabilities."""
    settings = plan.config.evaluation.capabilities
    if settings is None:
        return CapabilityJobs([], {planned.name: [] for planned in plan.strategies})
    make = partial(_jobs, plan, settings, _inputs(settings))
    return CapabilityJobs(
        make(_BASE, plan.preparation.model_dir, plan.preparation.model_digest, None),
        {
            planned.name: make(
                planned.name, planned.stages[-1].directory.model, _model_digest(planned), _weights_digest(planned)
            )
            for planned in plan.strategies
        },
    )


def _model_digest(planned: PlannedStrategy) -> str:
    """Digest of what a model was made from, and of its weights if there were others before."""
    made_from, weights = planned.stages[-1].digest, renewal(planned.evaluation.folder)
    return digest_json([made_from, weights]) if weights else made_from


def _weights_digest(planned: PlannedStrategy) -> str | None:
    """Digest of the weights that a strategy ends in; None before they are trained."""
    last = planned.stages[-1].directory
    return read_summary(last).weights_digest if last.summary.is_file() else None


def record_capabilities(plan: RunPlan, planned: CapabilityJobs) -> None:
    """Record which results belong to the run, as far as there are any."""
    if plan.config.evaluation.capabilities is None:
        plan.run.capabilities.unlink(missing_ok=True)
        return

    def results(jobs: list[CapabilityJob]) -> dict[str, str]:
        return {job.task: str(job.file.relative_to(plan.run.path)) for job in jobs if job.is_done}

    strategies = {name: results(jobs) for name, jobs in planned.strategies.items()}
    CAPABILITY_FILES.write(plan.run.capabilities, CapabilityFiles(results(planned.base), strategies))


def _jobs(
    plan: RunPlan,
    settings: CapabilitiesConfig,
    inputs: list[object],
    model: str,
    model_dir: Path,
    model_digest: str,
    weights_digest: str | None,
) -> list[CapabilityJob]:
    config = plan.config
    digests = {task: digest_json([model_digest, task, *inputs]) for task in settings.tasks}
    return [
        CapabilityJob(
            model=model,
            model_dir=model_dir.absolute(),
            task=task,
            settings=settings.model_copy(update={"task_dir": settings.task_dir and settings.task_dir.absolute()}),
            trust_remote_code=config.model.trust_remote_code,
            gpus_per_model=config.evaluation.gpus_per_model,
            digest=digest,
            weights_digest=weights_digest,
            file=result_file(plan.run, task, digest),
        )
        for task, digest in digests.items()
    ]


def _inputs(settings: CapabilitiesConfig) -> list[object]:
    """What a result depends on beside the model and the task. Tasks of one's own may use all files of their folder."""
    folder = settings.task_dir
    own = [[f.relative_to(folder).as_posix(), known_digest(f)] for f in visible_files(folder)] if folder else []
    return [harness_version(), settings.limit, settings.num_fewshot, own]
