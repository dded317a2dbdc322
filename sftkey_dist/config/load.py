"""Builds a RunConfig from YAML files and `a.b=value` overrides. Every mistake is one line that names its place."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError, field_validator

from sftkey_dist.config.overrides import parse_override
from sftkey_dist.config.paths import LocalPath
from sftkey_dist.config.problems import Source, describe
from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.section import Section
from sftkey_dist.config.study import Study, StudyConfig, StudyRun, own_keys
from sftkey_dist.config.yaml_text import YamlError, read_yaml
from sftkey_dist.errors import ConfigError

AnySection = TypeVar("AnySection", bound=Section)

_MAX_FILE_BYTES = 1_000_000
_STUDY = "study"
_COMMAND_LINE = "the command line"


class _StudyFolder(Section):
    """The key of a study's file that belongs to the study and not to its runs."""

    run_dir: LocalPath
    """Folder that contains the folders of the runs."""

    @field_validator("run_dir")
    @classmethod
    def has_a_name(cls, value: Path) -> Path:
        """The folder's name is also the name of the experiment."""
        if not value.name:
            raise ValueError("must end in a folder name, such as runs/my_study")
        return value


class _StudyFile(RunConfig):
    """All keys of a study's file. Overrides are parsed by it; it is never validated as a whole."""

    study: StudyConfig
    """The study."""


def load_config(files: Sequence[Path], overrides: Sequence[str] = ()) -> RunConfig:
    """Load the configuration of a run; see `load_section`."""
    return load_section(RunConfig, files, overrides)


def load_section(section: type[AnySection], files: Sequence[Path], overrides: Sequence[str] = ()) -> AnySection:
    """Merge files from left to right, apply `a.b=value` overrides, and validate the result.

    Raises:
        ConfigError: The message names the file or override, the key and the remedy.
    """
    sources = [Source(str(file), _read(file)) for file in files]
    sources.append(Source(_COMMAND_LINE, _read_overrides(section, overrides)))
    return _validated(section, _merged(source.content for source in sources), sources)


def is_study(files: Sequence[Path]) -> bool:
    """Whether the files describe a study, which has many runs."""
    return _STUDY in _read_all(files)


def load_study(files: Sequence[Path], overrides: Sequence[str] = ()) -> Study:
    """Load every run of a study.

    Overrides take precedence over the keys of a variant. Overrides that begin with ``study.`` change the study itself.

    Raises:
        ConfigError: The message names the file, the variant, the key and the remedy.
    """
    content, changes = _read_all(files), _read_overrides(_StudyFile, overrides)
    settings = _merge({_STUDY: content.pop(_STUDY)}, {_STUDY: changes.pop(_STUDY, {})})
    sources = [Source(", ".join(map(str, files)), content), Source(_COMMAND_LINE, dict(changes))]
    study = _validated(StudyConfig, settings[_STUDY], sources[:1], "study.")
    named = {key: value for key, value in _merge(content, changes).items() if key == "run_dir"}
    folder = _validated(_StudyFolder, named, sources).run_dir
    changes.pop("run_dir", None)
    runs = []
    for seed in study.seeds:
        for name in (name for name in study.variants if seed in study.seeds_of(name)):
            keys = _merge(_merge(content, study.variants[name].config), changes)
            keys = _merge(keys, own_keys(keys, folder, name, seed))
            runs.append(StudyRun(name, seed, _validated(RunConfig, keys, sources, f"study.variants.{name}: ")))
    private = [run for run in runs if run.config.cluster.gpus_per_worker and run.config.cluster.address is None]
    if private and study.runs_at_a_time > 1:
        raise ConfigError(
            f"{', '.join(map(str, files))}: study.runs_at_a_time={study.runs_at_a_time}: each run would start "
            f"its own cluster, and all of them would use the first accelerators of this machine; start a Ray cluster "
            f"and set cluster.address to its address, or set study.runs_at_a_time=1"
        )
    return Study(folder, study, tuple(runs))


def _validated(
    section: type[AnySection], content: dict[str, object], sources: Sequence[Source], place: str = ""
) -> AnySection:
    try:
        return section.model_validate(content)
    except ValidationError as error:
        raise ConfigError(describe(error, section, content, sources, place)) from None


def _read_all(files: Sequence[Path]) -> dict[str, object]:
    return _merged(map(_read, files))


def _read_overrides(section: type[Section], overrides: Sequence[str]) -> dict[str, object]:
    return _merged(parse_override(section, override) for override in overrides)


def _merged(contents: Iterable[Mapping[str, object]]) -> dict[str, object]:
    merged: dict[str, object] = {}
    for content in contents:
        merged = _merge(merged, content)
    return merged


def _read(file: Path) -> dict[str, object]:
    try:
        content = read_yaml(_text_of(file))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text (byte {error.start})") from None
    except YamlError as error:
        raise ConfigError(f"{file}: not valid YAML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected keys and values at the top level, found {type(content).__name__}")
    return content


def _text_of(file: Path) -> str:
    if not file.is_file():
        raise ConfigError(f"{file}: no such configuration file")
    if file.stat().st_size > _MAX_FILE_BYTES:
        raise ConfigError(f"{file}: larger than {_MAX_FILE_BYTES} bytes; is this a configuration file?")
    return file.read_text(encoding="utf-8")


def _merge(base: Mapping[str, object], update: Mapping[str, object]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in update.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
