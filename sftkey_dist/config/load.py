"""Builds a RunConfig from YAML files and `a.b=value` overrides. Every mistake is one line that names its place."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError, field_validator

from sftkey_dist.config.messages import kind_of
from sftkey_dist.config.overrides import nested, parse_override
from sftkey_dist.config.paths import LocalPath
from sftkey_dist.config.problems import Source, describe
from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.section import Section
from sftkey_dist.config.strategy import StrategyConfig
from sftkey_dist.config.study import Study, StudyConfig, StudyRun, own_keys, run_name
from sftkey_dist.config.tune import TuneConfig, Tuning
from sftkey_dist.config.yaml_text import YamlError, read_yaml
from sftkey_dist.errors import ConfigError

AnySection = TypeVar("AnySection", bound=Section)

_MAX_FILE_BYTES = 1_000_000
_STUDY, _TUNE = "study", "tune"
_COMMAND_LINE = "the command line"


class _Folder(Section):
    """The key of a file of many runs that belongs to all of them together."""

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


class _TuningFile(RunConfig):
    """All keys of a tuning's file; see `_StudyFile`."""

    tune: TuneConfig
    """The tuning."""


@dataclass(frozen=True)
class _ManyRuns(Generic[AnySection]):
    """A file that describes many runs.

    Attributes:
        settings: the section about the runs.
        folder: folder of all runs.
        content: the other keys of the files.
        changes: the other keys of the command line.
        sources: where these keys come from.
    """

    settings: AnySection
    folder: Path
    content: dict[str, object]
    changes: dict[str, object]
    sources: tuple[Source, ...]


def load_config(files: Sequence[Path], overrides: Sequence[str] = ()) -> RunConfig:
    """Load the configuration of a run; see `load_section`."""
    return load_section(RunConfig, files, overrides)


def load_section(section: type[AnySection], files: Sequence[Path], overrides: Sequence[str] = ()) -> AnySection:
    """Merge files from left to right, apply `a.b=value` overrides, and validate the result.

    Raises:
        ConfigError: The message names the file or override, the key and the remedy.
    """
    sources = [Source(str(file), _read(file)) for file in files]
    in_files = _merged(source.content for source in sources)
    sources.append(Source(_COMMAND_LINE, _read_overrides(section, overrides, in_files)))
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
    many = _many_runs(_STUDY, StudyConfig, _StudyFile, files, overrides)
    study, runs = many.settings, []
    for seed in study.seeds:
        for name in (name for name in study.variants if seed in study.seeds_of(name)):
            keys = _merge(_merge(many.content, study.variants[name].config), many.changes)
            keys = _merge(keys, own_keys(keys, many.folder, run_name(name, seed)) | {"seed": seed})
            runs.append(StudyRun(name, seed, _validated(RunConfig, keys, many.sources, f"study.variants.{name}: ")))
    private = [run for run in runs if run.config.cluster.gpus_per_worker and run.config.cluster.address is None]
    if private and study.runs_at_a_time > 1:
        raise ConfigError(
            f"{', '.join(map(str, files))}: study.runs_at_a_time={study.runs_at_a_time}: each run would start "
            f"its own cluster, and all of them would use the first accelerators of this machine; start a Ray cluster "
            f"and set cluster.address to its address, or set study.runs_at_a_time=1"
        )
    try:
        study.require_strategies({run.variant: run.config for run in runs})
    except ValueError as error:
        raise ConfigError(f"{many.sources[0].name}: study.{error}") from None
    return Study(many.folder, study, tuple(runs))


def is_tuning(files: Sequence[Path]) -> bool:
    """Whether the files describe a tuning, which has many trials."""
    return _TUNE in _read_all(files)


def load_tuning(files: Sequence[Path], overrides: Sequence[str] = ()) -> Tuning:
    """Load a tuning, and validate the configuration with every value that is written for a key.

    Overrides that begin with ``tune.`` change the tuning itself.

    Raises:
        ConfigError: The message names the file, the key and the remedy.
    """
    if not is_tuning(files):
        named = ", ".join(map(str, files)) or "no configuration file is given"
        raise ConfigError(f"{named}: no section tune, which names the keys and their values")
    many = _many_runs(_TUNE, TuneConfig, _TuningFile, files, overrides)
    for key in many.settings.keys:
        if _has(many.changes, key.split(".")):
            raise ConfigError(
                f"{_COMMAND_LINE}: {key} is tuned, so that the value would have no effect; leave it out, or change "
                f"tune.keys"
            )
    tuning = Tuning(many.folder, many.settings, _merge(many.content, many.changes), many.sources)
    for key, space in tuning.settings.keys.items():
        for value in space.listed:
            load_trial(tuning, "trial", {key: value})
    return tuning


def load_trial(tuning: Tuning, name: str, parameters: Mapping[str, object]) -> RunConfig:
    """The configuration of a trial, which trains the tuned strategy alone.

    Args:
        tuning: the tuning that it belongs to.
        name: folder of the trial, relative to the tuning's folder.
        parameters: values of the tuned keys.

    Raises:
        ConfigError: The configuration does not have a key or does not take its value, or there is no such strategy.
    """
    keys = dict(tuning.content)
    for key, value in parameters.items():
        keys = _merge(keys, nested(key.split("."), value))
    keys = _merge(keys, own_keys(keys, tuning.folder, name))
    values = ", ".join(f"{key}={value}" for key, value in parameters.items())
    config = _validated(RunConfig, keys, tuning.sources, f"tune.keys: {values}: ")
    named = {item.name if isinstance(item, StrategyConfig) else item: item for item in config.strategies}
    if tuning.settings.strategy not in named:
        raise ConfigError(
            f"{tuning.sources[0].name}: tune.strategy={tuning.settings.strategy}: there is no such strategy; the "
            f"strategies are {', '.join(named)}"
        )
    return config.model_copy(update={"strategies": (named[tuning.settings.strategy],)})


def _many_runs(
    key: str, section: type[AnySection], whole: type[Section], files: Sequence[Path], overrides: Sequence[str]
) -> _ManyRuns[AnySection]:
    """Separate the section ``key``, which describes the runs, and the folder of all runs from the other keys."""
    content = _read_all(files)
    if _STUDY in content and _TUNE in content:
        raise ConfigError(f"{', '.join(map(str, files))}: gives both study and tune; keep one of them in another file")
    changes = _read_overrides(whole, overrides, content)
    in_files, on_command_line = content.pop(key), changes.pop(key, {})
    settings = _merge({key: in_files}, {key: on_command_line})
    own = [Source(", ".join(map(str, files)), _mapping(in_files)), Source(_COMMAND_LINE, _mapping(on_command_line))]
    sources = (Source(", ".join(map(str, files)), content), Source(_COMMAND_LINE, dict(changes)))
    validated = _validated(section, settings[key], own, f"{key}.")
    named = {name: value for name, value in _merge(content, changes).items() if name == "run_dir"}
    folder = _validated(_Folder, named, sources).run_dir
    changes.pop("run_dir", None)
    return _ManyRuns(validated, folder, content, changes, sources)


def _mapping(content: object) -> Mapping[str, object]:
    return content if isinstance(content, Mapping) else {}


def _validated(
    section: type[AnySection], content: dict[str, object], sources: Sequence[Source], place: str = ""
) -> AnySection:
    try:
        return section.model_validate(content)
    except ValidationError as error:
        raise ConfigError(describe(error, section, content, sources, place)) from None


def _read_all(files: Sequence[Path]) -> dict[str, object]:
    return _merged(map(_read, files))


def _read_overrides(
    section: type[Section], overrides: Sequence[str], in_files: Mapping[str, object]
) -> dict[str, object]:
    """The nested keys of all overrides, which are applied to the content of the files in their order."""
    changes: dict[str, object] = {}
    for override in overrides:
        _require_no_part_of_a_list(override.partition("=")[0], _merge(in_files, changes))
        changes = _merge(changes, parse_override(section, override))
    return changes


def _require_no_part_of_a_list(path: str, content: Mapping[str, object]) -> None:
    """
    Raises:
        ConfigError: the path leads to a key of what is a list, which it would replace.
    """
    found: object = content
    for number, key in enumerate(path.split(".")):
        if isinstance(found, list) and not key.isdigit():  # of items, the validation says more
            whole = ".".join(path.split(".")[:number])
            raise ConfigError(f"{_COMMAND_LINE}: {path}: {whole} is a list of {len(found)} items; give the whole list")
        found = found.get(key) if isinstance(found, Mapping) else None


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
        found = "nothing: the file is empty" if content is None else kind_of(content)
        raise ConfigError(f"{file}: expected keys and values at the top level, found {found}")
    return content


def _text_of(file: Path) -> str:
    if file.is_dir():
        raise ConfigError(f"{file}: a folder; give the configuration file, such as that with which a run was started")
    if not file.is_file():
        raise ConfigError(f"{file}: no such configuration file")
    if file.stat().st_size > _MAX_FILE_BYTES:
        raise ConfigError(f"{file}: larger than {_MAX_FILE_BYTES} bytes; is this a configuration file?")
    return file.read_text(encoding="utf-8")


def _has(content: object, keys: Sequence[str]) -> bool:
    """Whether nested mappings have a value for a key."""
    if not keys:
        return True
    return isinstance(content, Mapping) and keys[0] in content and _has(content[keys[0]], keys[1:])


def _merge(base: Mapping[str, object], update: Mapping[str, object]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in update.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
