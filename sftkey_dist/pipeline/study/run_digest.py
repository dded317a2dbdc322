"""What the results of a run depend on, as one digest: whether a run of a study or a tuning is done."""

from pathlib import Path

from sftkey_dist.config.named_paths import function_checks, named_paths
from sftkey_dist.config.run import RunConfig
from sftkey_dist.data.encoding.encode import ENCODER_VERSION
from sftkey_dist.data.rows.shards import content_digest
from sftkey_dist.digests import digest_json
from sftkey_dist.evaluation.answers.functions import function_file
from sftkey_dist.evaluation.judging import SCORING_VERSION
from sftkey_dist.files import visible_files
from sftkey_dist.models.digests import known_digest
from sftkey_dist.models.load import model_fingerprint


def made_of(config: RunConfig) -> str:
    """Digest of everything that a run's results depend on, with the content of what it reads and how it is encoded and
    scored, but not its cluster or tracking.

    Raises:
        DataError: a file of the data is missing.
    """
    content = config.model_dump(mode="json", exclude={"run_dir": True, "tracking": True, "cluster": True})
    sources = (*config.data.train, *config.data.test)
    read = _files_read(config, {source.path for source in sources})
    if config.training.precision == "auto" and config.cluster.gpus_per_worker:
        read["training.precision"] = "bfloat16"
    versions = [SCORING_VERSION, ENCODER_VERSION]
    return digest_json([content, [content_digest(source) for source in sources], read, versions])


def _files_read(config: RunConfig, data: set[str | None]) -> dict[str, str]:
    """The digests of models, checks, templates and tasks, by their paths. Names on the hub are no files."""
    named = [Path(path) for path in dict.fromkeys(named_paths(config)) if path not in data]
    models = {str(path): model_fingerprint(path) for path in named if (path / "config.json").is_file()}
    others = [path for path in named if str(path) not in models]
    files = [file for path in others for file in ([path] if path.is_file() else visible_files(path))]
    functions = [check.function for check in function_checks(config)]
    in_modules = [name for name in functions if Path(name.rpartition(":")[0]) not in files]  # the files count already
    modules = {name: known_digest(file) for name in in_modules if (file := function_file(name)) is not None}
    return models | {str(file): known_digest(file) for file in files} | modules
