"""Resolves the strategies of a configuration: presets by their names, and strategies of one's own."""

from collections.abc import Mapping, Sequence

from sftkey_dist.config.objective import Objective
from sftkey_dist.config.own_data import OwnDataConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.strategy import KeyStageConfig, OptimizationConfig, StageConfig, StrategyConfig
from sftkey_dist.contract import END_OF_TURN, PROMPT, PROMPT_ID, Form, ResponseContract, segments_of
from sftkey_dist.errors import ConfigError
from sftkey_dist.strategy.stage import Anchor, Replay, Stage, Strategy


def resolve_strategies(config: RunConfig) -> tuple[Strategy, ...]:
    """The strategies of a run with all weights and settings resolved.

    Raises:
        ConfigError: a stage names a segment that the contract does not have, or trains no segment.
    """
    return tuple(
        _own(strategy, config) if isinstance(strategy, StrategyConfig) else _preset(strategy, config)
        for strategy in config.strategies
    )


def _preset(name: str, config: RunConfig) -> Strategy:
    full = Stage("full", _full_weights(config.contract), config.optimization)
    form = Form.UNTAGGED if name == "sft" else Form.TAGGED
    match name:
        case "key-tag":
            return Strategy(
                name, form, (Stage("key", _key_weights(config.contract, config.key_stage), config.optimization),)
            )
        case "sftkey-tag":
            return Strategy(name, form, (full, _key_stage_after(full, config)))
        case _:
            return Strategy(name, form, (full,))


def _key_stage_after(full: Stage, config: RunConfig) -> Stage:
    """The preset key stage that continues from a stage on the whole response."""
    settings, weights = config.key_stage, _key_weights(config.contract, config.key_stage)
    optimization = _continued(config)
    _require_balanced_routers(settings, optimization, config, "key_stage")
    stage = Stage(
        "key",
        weights,
        optimization,
        settings.stop_gradient_prefix,
        replay=_replay(settings, full, "key_stage"),
        interpolate=_interpolate(settings, config, "key_stage"),
        anchor=_anchor(settings, weights, config.contract, "key_stage"),
        data=_own_data(settings, config, "key_stage"),
        project_conflicts=settings.project_conflicts,
    )
    _require_gradients_to_project(stage, config, "key_stage")
    return stage


def _continued(config: RunConfig) -> OptimizationConfig:
    """Optimization of a key stage that continues from an earlier stage."""
    full, key = config.optimization, config.key_stage
    slower = full.model_copy(update={"learning_rate": key.learning_rate_ratio * full.learning_rate})
    return key.optimization.applied_to(slower)


def _own(strategy: StrategyConfig, config: RunConfig) -> Strategy:
    stages: list[Stage] = []
    for stage in strategy.stages:
        before = stages[-1] if stages else None
        stages.append(_stage(f"strategies.{strategy.name}.{stage.name}", stage, before, config))
    return Strategy(strategy.name, strategy.form, tuple(stages))


def _stage(where: str, stage: StageConfig, before: Stage | None, config: RunConfig) -> Stage:
    for key in ("replay", "interpolate", "data"):
        if getattr(stage, key) and before is None:
            raise ConfigError(f"{where}: no stage comes before the first one; remove its key {key}")
    weights = weights_by_id(stage.weights, config.contract, where)
    if stage.stop_gradient_prefix and weights[PROMPT_ID]:
        raise ConfigError(f"{where}: stop_gradient_prefix and a weight for the prompt exclude each other; remove one")
    optimization = stage.optimization.applied_to(config.optimization)
    _require_balanced_routers(stage, optimization, config, where)
    resolved = Stage(
        stage.name,
        weights,
        optimization,
        stage.stop_gradient_prefix,
        _groups(config.contract, has_prompt=weights[PROMPT_ID] > 0) if stage.normalize == "segments" else (),
        _objectives(stage.objective, config.contract, where),
        _replay(stage, before, where) if before is not None else None,
        _interpolate(stage, config, where),
        _anchor(stage, weights, config.contract, where),
        _own_data(stage, config, where),
        stage.project_conflicts,
    )
    _require_gradients_to_project(resolved, config, where)
    return resolved


def _require_balanced_routers(
    stage: StageConfig | KeyStageConfig, optimization: OptimizationConfig, config: RunConfig, where: str
) -> None:
    """Routers are balanced over all tokens: those of a stopped prefix have no gradient, and chunks hide routers."""
    excluding = {
        "stop_gradient_prefix": stage.stop_gradient_prefix,
        "training.mlp_chunk_tokens": config.training.mlp_chunk_tokens is not None,
    }
    for key, is_set in excluding.items():
        if optimization.router_loss_weight and is_set:
            raise ConfigError(
                f"{where}: {key} and optimization.router_loss_weight exclude each other; remove one of them"
            )


def _require_gradients_to_project(stage: Stage, config: RunConfig, where: str) -> None:
    """Several segments must add to the loss, and nothing else must.

    The loss of routers is of no segment. An anchor's gradient is 0 at the start of the stage: others would be projected
    on its rounding errors. Which gradient a stopped prefix stops depends on the segments that a pass computes.
    """
    if not stage.project_conflicts:
        return
    excluding = {
        "stop_gradient_prefix": stage.stop_gradient_prefix,
        "anchor": stage.anchor is not None,
        "optimization.router_loss_weight": stage.optimization.router_loss_weight > 0,
    }
    for key, is_set in excluding.items():
        if is_set:
            raise ConfigError(f"{where}: project_conflicts and {key} exclude each other; remove one of them")
    if config.training.zero.offload == "nvme":
        raise ConfigError(
            f"{where}: gradients on NVMe cannot be set; remove project_conflicts, or set training.zero.offload=cpu"
        )
    names = config.contract.segment_names
    parts = stage.loss_parts(names, [1.0] * len(names))
    if len(parts) < 2:
        raise ConfigError(
            f"{where}: project_conflicts needs two trained segments or more, and this stage trains only "
            f"{next(iter(parts))}; give another segment a weight, or remove project_conflicts"
        )


def _replay(stage: StageConfig | KeyStageConfig, before: Stage, where: str) -> Replay | None:
    if stage.replay is None:
        return None
    if stage.stop_gradient_prefix:  # a replayed step trains what lies before the answer
        raise ConfigError(f"{where}: replay and stop_gradient_prefix exclude each other; remove one of them")
    if before.stop_gradient_prefix:
        raise ConfigError(f"{where}: a stage with stop_gradient_prefix cannot be replayed; remove the key replay")
    return Replay(stage.replay.every, before.weights, before.segment_groups, before.objectives)


def _interpolate(stage: StageConfig | KeyStageConfig, config: RunConfig, where: str) -> tuple[float, ...]:
    guard = config.validation.guard
    if stage.interpolate and config.training.zero.offload == "nvme":
        raise ConfigError(
            f"{where}: weights on NVMe cannot be set; remove interpolate, or set training.zero.offload=cpu"
        )
    if stage.interpolate and config.training.lora is not None and config.training.lora.weight_decomposed:
        raise ConfigError(
            f"{where}: between a model and one with decomposed adapters, none is the merge of an adapter; remove "
            f"interpolate, or set training.lora.weight_decomposed=false"
        )
    if stage.interpolate and (guard is None or guard.keep != "best"):
        raise ConfigError(
            f"{where}: interpolate needs a guard that keeps the best model; set validation.guard={{}} and "
            f"validation.num_examples, or remove interpolate"
        )
    return stage.interpolate


def _anchor(
    stage: StageConfig | KeyStageConfig, weights: Sequence[float], contract: ResponseContract, where: str
) -> Anchor | None:
    if stage.anchor is None:
        return None
    if stage.stop_gradient_prefix:  # what lies before the answer has no gradient
        raise ConfigError(f"{where}: anchor and stop_gradient_prefix exclude each other; remove one of them")
    names, named = contract.segment_names, stage.anchor.segments
    known = {*names, "tags"} - {PROMPT}
    if unknown := sorted(set(named) - known):
        raise ConfigError(f"{where}: unknown segment {unknown[0]!r} in anchor; known: {', '.join(sorted(known))}")
    segments = tuple(
        name != PROMPT and (name in named or ("." in name and "tags" in named) if named else not weight)
        for name, weight in zip(names, weights, strict=True)
    )
    if not any(segments):
        raise ConfigError(f"{where}: the stage trains the whole response; name the segments of its anchor")
    return Anchor(stage.anchor.weight, segments, stage.anchor.top_k)


def _own_data(stage: StageConfig | KeyStageConfig, config: RunConfig, where: str) -> OwnDataConfig | None:
    if stage.data is not None and config.evaluation.backend == "endpoint":
        raise ConfigError(
            f"{where}: data.from=previous needs a backend that loads the model of the stage before, and a server has a "
            f"model loaded already; set evaluation.backend=transformers or vllm, or remove the key data"
        )
    return stage.data


def _groups(contract: ResponseContract, *, has_prompt: bool) -> tuple[int, ...]:
    """Group of each segment id: a segment with its tags, the end-of-turn token with the last segment, and a trained
    prompt alone."""
    segments = segments_of(contract.segment_names).values()
    groups = {segment_id: number for number, ids in enumerate(segments) for segment_id in ids}
    groups[PROMPT_ID] = len(segments) if has_prompt else len(segments) - 1  # of a prompt without weight any will do
    return tuple(groups[segment_id] for segment_id in range(len(groups)))


def _objectives(objectives: Mapping[str, Objective], contract: ResponseContract, where: str) -> tuple[Objective, ...]:
    """Objectives by segment id; ``all`` stands for what is not named."""
    allowed = {*contract.segment_names, "tags", "all"}
    if unknown := sorted(set(objectives) - allowed):
        raise ConfigError(f"{where}: unknown segment {unknown[0]!r} in objective; known: {', '.join(sorted(allowed))}")
    rest = objectives.get("all", Objective())
    found = tuple(
        objectives.get(name, objectives.get("tags", rest) if "." in name else rest) for name in contract.segment_names
    )
    return () if all(objective.is_nll for objective in found) else found


def _full_weights(contract: ResponseContract) -> tuple[float, ...]:
    """Weights of everything except the prompt: the loss of SFT and of stage 1."""
    own = {segment.name: segment.weight for segment in contract.segments}
    return tuple(0.0 if name == PROMPT else own.get(name, 1.0) for name in contract.segment_names)


def _key_weights(contract: ResponseContract, key_stage: KeyStageConfig) -> tuple[float, ...]:
    """Weights of the key segments' text, and of what `key_stage` adds to it."""
    trained = {segment.name: segment.weight for segment in contract.key_segments}
    if key_stage.tags:
        trained |= {f"{segment.name}.{end}": 1.0 for segment in contract.key_segments for end in ("open", "close")}
    if key_stage.end_of_turn:
        trained[END_OF_TURN] = 1.0
    return tuple(trained.get(name, 0.0) for name in contract.segment_names)


def weights_by_id(weights: Mapping[str, float], contract: ResponseContract, where: str) -> tuple[float, ...]:
    """Convert weights by name to weights by segment id. ``tags`` stands for all tags; a tag's own name overrides it.

    Raises:
        ConfigError: a name is unknown, a weight is negative, or no weight is positive.
    """
    allowed = {*contract.segment_names, "tags"}
    unknown = sorted(set(weights) - allowed)
    if unknown:
        raise ConfigError(f"{where}: unknown segment {unknown[0]!r} in weights; known: {', '.join(sorted(allowed))}")
    of_response = [weight for name, weight in weights.items() if name != PROMPT]
    if any(weight < 0 for weight in weights.values()) or not any(of_response):
        raise ConfigError(
            f"{where}: weights must not be negative, and at least one of the response must be positive, got {weights}"
        )
    return tuple(weights.get(name, weights.get("tags", 0.0) if "." in name else 0.0) for name in contract.segment_names)
