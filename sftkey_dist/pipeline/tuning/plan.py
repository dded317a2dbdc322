"""What a tuning trains: the sampled configurations, their stages, and those that all trials share."""

import itertools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from sftkey_dist.config import RunConfig, load_trial
from sftkey_dist.config.tune import SearchSpace, Tuning
from sftkey_dist.errors import ConfigError
from sftkey_dist.files import copy_tree, folder_written_whole, to_json
from sftkey_dist.models.folder import link_file
from sftkey_dist.pipeline.preparation import Preparation
from sftkey_dist.pipeline.run_plan import RunPlan
from sftkey_dist.pipeline.stages import PlannedStage, plan_stages
from sftkey_dist.pipeline.study.runs import with_what_is_shared
from sftkey_dist.pipeline.tracking.runs import open_tracker
from sftkey_dist.pipeline.train import require_sound_cluster, train
from sftkey_dist.run_dir import RunDir, StageDir
from sftkey_dist.strategy import Stage, resolve_strategies
from sftkey_dist.training.job import StageJob

_TRIES = 20
"""Samples per trial, before it is said that there are no more different ones."""


def sample(tuning: Tuning) -> list[dict[str, object]]:
    """The parameters of every trial, all different, from Ray Tune's domains and the tuning's seed.

    Raises:
        ConfigError: there are too few different ones, or the grids do not divide the number of trials.
    """
    keys, random = tuning.settings.keys, np.random.RandomState(tuning.settings.seed)
    grids = {key: space.grid for key, space in keys.items() if space.grid is not None}
    domains = {key: _domain(space) for key, space in keys.items() if space.grid is None}
    corners = [dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())]
    number = tuning.settings.num_trials or len(corners)
    if number % len(corners):
        raise ConfigError(f"tune.num_trials={number} is no multiple of the {len(corners)} combinations of the grids")
    found: dict[str, dict[str, object]] = {}
    for _ in range(_TRIES * number):
        sampled = {key: _rounded(domain.sample(random_state=random)) for key, domain in domains.items()}
        values = corners[len(found) % len(corners)] | sampled
        found.setdefault(to_json(values), {key: values[key] for key in keys})
        if len(found) == number:
            return list(found.values())
    raise ConfigError(f"tune.num_trials={number}: only {len(found)} different trials were found; lower it")


def _domain(space: SearchSpace) -> Any:
    if space.loguniform:
        return tune.loguniform(*space.loguniform)
    return tune.uniform(*space.uniform) if space.uniform else tune.choice(list(space.choice or ()))


def _rounded(value: Any) -> Any:
    """A sampled number with four digits, so that tables show what was trained."""
    return float(f"{value:.3e}") if isinstance(value, float) else value


def trial_config(tuning: Tuning, name: str, parameters: Mapping[str, object]) -> RunConfig:
    """The configuration of a trial; see `load_trial`."""
    config = load_trial(tuning, name, parameters)
    return with_what_is_shared(config, tuning.folder, config.prompt.date or RunDir(tuning.folder).first_prepared())


def plan_trial(config: RunConfig, preparation: Preparation) -> tuple[PlannedStage, ...]:
    """The stages of a trial, whose data and base model are those of all trials."""
    strategies = resolve_strategies(config)
    prepared = replace(preparation, run=RunDir(config.run_dir), strategies=strategies)
    return plan_stages(config, prepared)[strategies[0].name]


def require_scores(tuning: Tuning, config: RunConfig, tuned: Sequence[PlannedStage]) -> None:
    """
    Raises:
        ConfigError: the metric is not measured in the last stages of the trials, or two of them are the same.
    """
    settings, metric = tuning.settings, tuning.settings.metric
    kind, *names = metric.split("/")
    other = f"validation/segments/{config.contract.key_segments[-1].name}/nll"
    if kind == "guard" and tuned[0].job.guard is None:
        raise ConfigError(
            f"tune.metric={metric}: no guard watches stage {tuned[0].stage.name} of {settings.strategy}; set "
            f"validation.guard={{}} and validation.num_examples, or tune.metric={other}"
        )
    if kind == "validation" and not config.validation.num_examples:
        raise ConfigError(f"tune.metric={metric} is measured on held-out rows; set validation.num_examples")
    _require_score_of_result(metric, tuned[0].job)
    if names[0] == "segments" and names[1] not in config.contract.segment_names:
        raise ConfigError(f"tune.metric={metric}: the segments are {', '.join(config.contract.segment_names)}")
    if names == ["loss"] and len({_loss_of(planned.stage) for planned in tuned}) > 1:
        raise ConfigError(
            f"tune.metric={metric}: trials of {', '.join(settings.keys)} weigh tokens differently or have other "
            f"objectives, so that their losses cannot be compared; set tune.metric={other}"
        )
    if len({stage.digest for stage in tuned}) < len(tuned):
        raise ConfigError(
            f"tune.keys: some trials of {', '.join(settings.keys)} are the same training, because {settings.strategy} "
            f"does not depend on one of these keys; remove it"
        )


def _require_score_of_result(metric: str, job: StageJob) -> None:
    """
    Raises:
        ConfigError: the guard may keep a model of a step after which the metric is not measured.
    """
    if job.guard is None or job.guard.settings.keep == "last" or metric.startswith("guard/"):
        return
    kept_every, every = job.guard.settings.every_steps, job.validation.every_steps
    if kept_every % every:
        raise ConfigError(
            f"tune.metric={metric} is measured every {every} steps, and the guard may keep the model after any "
            f"{kept_every} steps; set validation.every_steps to a divisor of validation.guard.every_steps"
        )


def _loss_of(stage: Stage) -> object:
    """What the loss of a stage on given tokens depends on."""
    return stage.weights, stage.segment_groups, stage.objectives


def train_shared(plan: RunPlan, trials: Sequence[Sequence[PlannedStage]]) -> list[Path]:
    """Check the nodes, train the first stages as far as they are the same in all trials, and return their folders.

    The tracking store is opened even if no stage is shared: trials that start together would all create its tables and
    its experiment, and if it does not answer, nothing is trained.
    """
    tracker = open_tracker(plan.config)
    require_sound_cluster(plan)
    (planned,) = plan.strategies
    digests = ({stages[place].digest for stages in trials} for place in range(len(planned.stages) - 1))
    shared = planned.stages[: len(list(itertools.takewhile(lambda different: len(different) == 1, digests)))]
    if shared:
        train(replace(plan, strategies=(replace(planned, stages=shared),)), tracker, nodes_are_checked=True)
    return [stage.directory.path for stage in shared]


def link_folders(folders: Sequence[Path], source: RunDir, target: RunDir) -> None:
    """Put folders of a run into another one, with hard links where the file system has them.

    Master weights come back too: a trial removes them from its folder once it needs them no more, and its next
    configuration starts from them again.
    """
    for original in (part for folder in folders for part in (folder, StageDir(folder).masters)):
        copy = target.path / original.relative_to(source.path)
        if original.is_dir() and not copy.is_dir():
            with folder_written_whole(copy) as scratch:
                copy_tree(original, scratch, _link)


def _link(source: str, target: str) -> None:
    if Path(source).suffix == ".jsonl":
        shutil.copyfile(source, target)  # what a trial appends must not reach the others
    else:
        link_file(Path(source), Path(target))
