"""Plans the capability check of a run: the base model once, and the last model of every strategy."""

from itertools import chain
from pathlib import Path

from sftkey_dist.config.evaluation import CapabilitiesConfig
from sftkey_dist.digests import digest_json
from sftkey_dist.evaluation.capabilities.fan_out import CapabilityJob
from sftkey_dist.evaluation.capabilities.harness import harness_version
from sftkey_dist.models.digests import known_digest
from sftkey_dist.pipeline.run_plan import RunPlan
from sftkey_dist.run_dir.artifacts.capabilities import CAPABILITY_FILES, CapabilityFiles, result_file

_BASE = "the base model"


def open_jobs(plan: RunPlan) -> list[CapabilityJob]:
    """The jobs without a result. A model that several strategies end in is measured once."""
    jobs: dict[Path, CapabilityJob] = {}
    for job in chain(_jobs_of_base(plan), *_jobs_of_strategies(plan).values()):
        jobs.setdefault(job.file, job)
    return [job for file, job in jobs.items() if not file.is_file()]


def record_capabilities(plan: RunPlan) -> None:
    """Record which results belong to the run, as far as there are any."""
    if plan.config.evaluation.capabilities is None:
        plan.run.capabilities.unlink(missing_ok=True)
        return

    def results(jobs: list[CapabilityJob]) -> dict[str, str]:
        return {job.task: str(job.file.relative_to(plan.run.path)) for job in jobs if job.file.is_file()}

    strategies = {name: results(jobs) for name, jobs in _jobs_of_strategies(plan).items()}
    CAPABILITY_FILES.write(plan.run.capabilities, CapabilityFiles(results(_jobs_of_base(plan)), strategies))


def _jobs_of_base(plan: RunPlan) -> list[CapabilityJob]:
    return _jobs(plan, _BASE, plan.preparation.model_dir, plan.preparation.model_digest)


def _jobs_of_strategies(plan: RunPlan) -> dict[str, list[CapabilityJob]]:
    return {
        planned.name: _jobs(plan, planned.name, planned.stages[-1].directory.model, planned.stages[-1].digest)
        for planned in plan.strategies
    }


def _jobs(plan: RunPlan, model: str, model_dir: Path, model_digest: str) -> list[CapabilityJob]:
    config, settings = plan.config, plan.config.evaluation.capabilities
    if settings is None:
        return []
    inputs = _inputs(settings)
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
            file=result_file(plan.run, task, digest),
        )
        for task, digest in digests.items()
    ]


def _inputs(settings: CapabilitiesConfig) -> list[object]:
    """What a result depends on beside the model and the task. Tasks of one's own may use all files of their folder."""
    folder = settings.task_dir
    files = [] if folder is None else sorted(file for file in folder.rglob("*") if file.is_file())
    own = [[file.relative_to(folder).as_posix(), known_digest(file)] for file in files if folder is not None]
    return [harness_version(), settings.limit, settings.num_fewshot, own]
