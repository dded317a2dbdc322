"""Explains why a stage is trained again although the run has trained a stage of this name before."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from sftkey_dist.errors import DataError
from sftkey_dist.pipeline.stages import PlannedStage
from sftkey_dist.report.numbers import listed
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.run_dir.artifacts.training import ORIGIN

_NAMES = {
    "model": "the model that it starts from",
    "store": "the training data or how it is encoded",
}
"""Of inputs that are digests, whose values say nothing."""
_NUM_STEPS = "num_steps"
"""It follows from other keys, and is therefore named last."""
_MAX_NAMED = 3
_SETTINGS_OF_GUARD = "guard.assessment.settings."


def changes_in_words(run: RunDir, planned: PlannedStage, in_use: Collection[PlannedStage]) -> Iterator[str]:
    """A line with the inputs that differ from the most similar trained stage of this name; nothing without one.

    Args:
        run: that has the trained stages.
        planned: the stage that is to be trained.
        in_use: all stages of the configuration. Strategies may have stages of one name, which are not compared.
    """
    if planned.directory.path.is_dir():
        return
    label, names_in_use = planned.directory.path.name.rpartition("-")[0], {of.directory.path.name for of in in_use}
    earlier = [
        (_differences(inputs, planned.inputs), stage.path.name)
        for stage in run.stages()
        if stage.path.name not in names_in_use
        and stage.path.name.rpartition("-")[0] == label
        and (inputs := _inputs_of(stage))
    ]
    if not earlier:
        return
    differences, name = min(earlier, key=lambda pair: len(pair[0]))
    named = differences[:_MAX_NAMED]
    if len(differences) > _MAX_NAMED:
        named.append(f"{len(differences) - _MAX_NAMED} more")
    yield (
        f"this has changed since it was last trained: {listed(named)}; stages/{name} is kept, but this configuration "
        f"does not use it"
    )


def _inputs_of(stage: StageDir) -> Mapping[str, object]:
    """Inputs of a stage; empty if it is not finished or its summary is damaged, since training does not need them."""
    with suppress(DataError):
        return ORIGIN.read(stage.summary).inputs if stage.summary.is_file() else {}
    return {}


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """The keys that differ, with their previous and current values."""
    flat_before, flat_now = dict(_flat(before)), dict(_flat(json.loads(json.dumps(now))))
    changed = [key for key in {**flat_before, **flat_now} if flat_before.get(key) != flat_now.get(key)]
    changed.sort(key=lambda key: key == _NUM_STEPS)
    return [
        _NAMES.get(key)
        or f"{_as_configured(key)} ({_short(flat_before.get(key))} before, {_short(flat_now.get(key))} now)"
        for key in changed
    ]


def _as_configured(key: str) -> str:
    """The guard judges as the evaluation does, by the same keys."""
    if key == _NUM_STEPS:
        return "the number of steps"
    return key.replace(_SETTINGS_OF_GUARD, "evaluation.") if key.startswith(_SETTINGS_OF_GUARD) else key


def _short(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


def _flat(values: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, values
