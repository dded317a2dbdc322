from contextlib import nullcontext

import pytest

from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.config.objective import Objective
from sftkey_dist.config.own_data import OwnDataConfig
from sftkey_dist.config.strategy import (
    AnchorConfig,
    KeyStageConfig,
    OptimizationConfig,
    OptimizationOverrides,
    ReplayConfig,
    StrategyConfig,
)
from sftkey_dist.config.training import LoraConfig, TrainingConfig, ZeroConfig
from sftkey_dist.config.validation import GuardConfig, ValidationConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.errors import ConfigError
from sftkey_dist.strategy import Anchor, LossScale, Replay, Stage, resolve_strategies, weights_by_id

NAMES = ResponseContract().segment_names


def trained(weights):
    return {name for name, weight in zip(NAMES, weights, strict=True) if weight > 0}


def test_presets_are_the_papers_four(run_config):
    strategies = {s.name: s for s in resolve_strategies(run_config)}
    assert list(strategies) == ["sft", "sft-tag", "key-tag", "sftkey-tag"]
    assert strategies["sft"].form is Form.UNTAGGED
    assert all(strategies[name].form is Form.TAGGED for name in ("sft-tag", "key-tag", "sftkey-tag"))
    everything_but_the_prompt = set(NAMES) - {"prompt"}
    assert trained(strategies["sft-tag"].stages[0].weights) == everything_but_the_prompt
    assert trained(strategies["key-tag"].stages[0].weights) == {"answer"}
    assert strategies["sftkey-tag"].stages[0] == strategies["sft-tag"].stages[0]
    assert trained(strategies["sftkey-tag"].stages[1].weights) == {"answer"}


def test_only_a_continuing_key_stage_takes_the_overrides(run_config):
    overrides = OptimizationOverrides(learning_rate=1e-5, max_steps=3)
    config = run_config.model_copy(update={"key_stage": KeyStageConfig(optimization=overrides)})
    strategies = {s.name: s for s in resolve_strategies(config)}
    assert strategies["key-tag"].stages[0].optimization == config.optimization
    continued = strategies["sftkey-tag"].stages[1].optimization
    assert (continued.learning_rate, continued.max_steps) == (1e-5, 3)
    assert continued.global_batch_size == config.optimization.global_batch_size


def test_a_continuing_key_stage_is_slower_by_a_ratio_unless_it_has_a_rate(run_config):
    config = run_config.model_copy(update={"key_stage": KeyStageConfig(learning_rate_ratio=0.25)})
    for settings, ratio in ((run_config, 0.05), (config, 0.25)):
        full, key = resolve_strategies(settings)[3].stages
        assert full.optimization == settings.optimization
        assert key.optimization.learning_rate == pytest.approx(ratio * settings.optimization.learning_rate)
        assert key.optimization.num_epochs == settings.optimization.num_epochs


def test_key_stage_can_train_tags_and_the_end_of_turn(run_config):
    config = run_config.model_copy(update={"key_stage": KeyStageConfig(tags=True, end_of_turn=True)})
    key = resolve_strategies(config)[2].stages[0]
    assert trained(key.weights) == {"answer.open", "answer", "answer.close", "end_of_turn"}


def test_weighted_sft_is_one_more_list_of_stages(run_config):
    own = StrategyConfig.model_validate(
        {
            "name": "weighted",
            "stages": [{"name": "all", "weights": {"reasoning": 0.1, "answer": 1.0, "tags": 0.5, "answer.close": 2}}],
        }
    )
    (strategy,) = resolve_strategies(run_config.model_copy(update={"strategies": (own,)}))
    assert dict(zip(NAMES, strategy.stages[0].weights, strict=True)) == {
        "prompt": 0,
        "end_of_turn": 0,
        "reasoning.open": 0.5,
        "reasoning": 0.1,
        "reasoning.close": 0.5,
        "answer.open": 0.5,
        "answer": 1.0,
        "answer.close": 2,
    }


def test_an_inherited_bound_can_be_lifted():
    base = OptimizationConfig(max_steps=5, num_epochs=2)
    lifted = OptimizationOverrides.model_validate({"max_steps": None}).applied_to(base)
    assert (lifted.max_steps, lifted.num_epochs) == (None, 2)


@pytest.mark.parametrize("weights", [{"anwser": 1.0}, {"prompt": 1.0}, {"answer": -1.0}, {"answer": 0.0}, {}])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ConfigError, match="weights"):
        weights_by_id(weights, ResponseContract(), "strategies.x")


def own(run_config, **keys):
    """The one stage of a strategy with these keys."""
    stage = {"name": "all", "weights": {"reasoning": 0.5, "answer": 2.0, "tags": 1.0}, **keys}
    strategy = StrategyConfig.model_validate({"name": "own", "stages": [stage]})
    (resolved,) = resolve_strategies(run_config.model_copy(update={"strategies": (strategy,)}))
    return resolved.stages[0]


def test_a_loss_is_one_mean_over_tokens_or_one_per_segment(run_config):
    counts = {"prompt": 50, "reasoning.open": 4, "reasoning": 40, "reasoning.close": 4, "answer": 2, "end_of_turn": 1}
    of_ids = [counts.get(name, 0) for name in NAMES]
    tokens = own(run_config)
    assert tokens.scale(of_ids) == LossScale(tokens.weights, 32.0)
    scale = own(run_config, normalize="segments").scale(of_ids)
    weights = dict(zip(NAMES, scale.weights, strict=True))
    assert scale.denominator == 1.0
    # In a segment tokens weigh as before, and together as much as its heaviest: 8 tags of 1 and 40 tokens of 0.5.
    assert weights["reasoning"] == pytest.approx(1.0 * 0.5 / 28)
    assert weights["reasoning.open"] == pytest.approx(1.0 * 1.0 / 28)
    assert weights["answer"] == pytest.approx(2.0 * 2.0 / 4)
    assert weights["prompt"] == weights["end_of_turn"] == 0
    absent = own(run_config, normalize="segments").scale([0] * len(NAMES))
    assert set(absent.weights) == {0.0}


def test_objectives_are_by_segment_and_a_text_is_a_kind(run_config):
    stage = own(run_config, objective={"reasoning": "dft", "tags": {"min_probability": 0.1}, "all": "entropy"})
    by_name = dict(zip(NAMES, stage.objectives, strict=True))
    assert by_name["reasoning"] == Objective(kind="dft")
    assert by_name["answer.open"] == Objective(min_probability=0.1)
    assert by_name["answer"] == by_name["end_of_turn"] == Objective(kind="entropy")
    assert own(run_config, objective={"all": "nll"}) == own(run_config)
    with pytest.raises(ConfigError, match="unknown segment 'anwser' in objective; known: all, answer"):
        own(run_config, objective={"anwser": "dft"})


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"kind": "dft", "exponent": 2}, "kind dft has no exponent"),
        ({"exponent": 1}, "kind nll has no exponent"),
        ({"kind": "power", "exponent": 2}, "at most 1, got 2"),
    ],
)
def test_a_key_that_an_objective_would_ignore_is_refused(objective, message):
    with pytest.raises(ValueError, match=message):
        Objective.model_validate(objective)


def test_an_objective_is_written_as_it_is_read():
    for objective in (Objective(), Objective(kind="dft"), Objective(kind="entropy", exponent=2.0)):
        assert Objective.model_validate(objective.model_dump()) == objective


def test_a_stage_replays_the_one_before_it_every_so_many_steps(run_config):
    every = ReplayConfig(every=4)
    config = run_config.model_copy(update={"key_stage": KeyStageConfig(replay=every)})
    full, key = resolve_strategies(config)[3].stages
    counts = [9] * len(NAMES)
    acting = [key.acting(step, counts) for step in range(8)]
    assert [trained(stage.weights) for stage in acting[2:4]] == [{"answer"}, trained(full.weights)]
    assert [stage is key for stage in acting] == [True, True, True, False] * 2
    nothing_replayed = [0 if name in trained(full.weights) else 9 for name in NAMES]
    assert key.acting(3, nothing_replayed) is key, "its loss would be divided by nothing"
    assert resolve_strategies(config)[2].stages[0].replay is None, "key-tag continues from nothing"
    first = {"name": "all", "weights": {"answer": 1.0}, "replay": {"every": 2}}
    own = StrategyConfig.model_validate({"name": "own", "stages": [first]})
    with pytest.raises(
        ConfigError, match=r"strategies\.own\.all: no stage comes before the first one; remove its key replay"
    ):
        resolve_strategies(run_config.model_copy(update={"strategies": (own,)}))
    assert "replay" not in KeyStageConfig().model_dump()
    both = KeyStageConfig(replay=every, stop_gradient_prefix=True)
    with pytest.raises(ConfigError, match="key_stage: replay and stop_gradient_prefix exclude each other"):
        resolve_strategies(run_config.model_copy(update={"key_stage": both}))
    stopped = first | {"replay": None, "stop_gradient_prefix": True}
    own = StrategyConfig.model_validate({"name": "own", "stages": [stopped, first | {"name": "b"}]})
    with pytest.raises(ConfigError, match=r"own\.b: a stage with stop_gradient_prefix cannot be replayed"):
        resolve_strategies(run_config.model_copy(update={"strategies": (own,)}))


def test_models_between_start_and_end_are_for_a_guard_to_choose(run_config):
    asked = run_config.model_copy(update={"key_stage": KeyStageConfig(interpolate=(0.5,))})
    with pytest.raises(ConfigError, match="key_stage: interpolate needs a guard that keeps the best model"):
        resolve_strategies(asked)
    for keep, is_refused in (("last", True), ("best", False)):
        validation = ValidationConfig(num_examples=60, guard=GuardConfig(keep=keep))
        guarded = asked.model_copy(update={"validation": validation})
        with pytest.raises(ConfigError, match="keeps the best") if is_refused else nullcontext():
            assert [stage.interpolate for stage in resolve_strategies(guarded)[3].stages] == [(), (0.5,)]
    decomposed = TrainingConfig(lora=LoraConfig(weight_decomposed=True))
    with pytest.raises(
        ConfigError, match=r"key_stage: between .* remove interpolate, or set .*weight_decomposed=false"
    ):
        resolve_strategies(guarded.model_copy(update={"training": decomposed}))
    with pytest.raises(ConfigError, match=r"own\.all: no stage comes before the first one; remove its key interpolate"):
        own(run_config, interpolate=[0.5])


def test_a_weight_of_the_prompt_makes_it_a_segment_of_its_own(run_config):
    weights = {"prompt": 0.2, "reasoning": 1.0, "answer": 1.0}
    stage = own(run_config, weights=weights, normalize="segments")
    groups = dict(zip(NAMES, stage.segment_groups, strict=True))
    assert groups["prompt"] not in {group for name, group in groups.items() if name != "prompt"}
    assert own(run_config, normalize="segments").segment_groups == tuple(
        0 if "reasoning" in name else 1 for name in NAMES
    ), "as before prompts could be trained"
    with pytest.raises(ConfigError, match="stop_gradient_prefix and a weight for the prompt exclude each other"):
        own(run_config, weights=weights, stop_gradient_prefix=True)


def test_an_anchor_holds_what_the_stage_does_not_train_or_what_is_named(run_config):
    config = run_config.model_copy(update={"key_stage": KeyStageConfig(anchor=AnchorConfig(weight=0.1))})
    full, key = resolve_strategies(config)[3].stages
    held = {name for name, is_held in zip(NAMES, key.anchor.segments, strict=True) if is_held}
    assert full.anchor is None
    assert held == set(NAMES) - {"prompt", "answer"}
    named = own(run_config, anchor={"weight": 2.0, "segments": ["tags", "reasoning"], "top_k": 4}).anchor
    assert {name for name, is_held in zip(NAMES, named.segments, strict=True) if is_held} == {
        name for name in NAMES if "." in name or name == "reasoning"
    }
    targets = [10 if name == "reasoning" else 0 for name in NAMES]
    weights = dict(zip(NAMES, named.token_weights(targets, 30.0), strict=True))
    assert weights["reasoning"] == pytest.approx(2.0 * 30.0 / 10), "divided by 30, 2 times a mean over 10 tokens"
    assert set(named.token_weights([0] * len(NAMES), 30.0)) == {0.0}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"anchor": {"weight": 1, "segments": ["prompt"]}},
            r"own\.all: unknown segment 'prompt' in anchor; known: answer",
        ),
        ({"anchor": {"weight": 1}, "stop_gradient_prefix": True}, "anchor and stop_gradient_prefix exclude each other"),
        (
            {"anchor": {"weight": 1}, "weights": dict.fromkeys(("tags", "reasoning", "answer", "end_of_turn"), 1.0)},
            "name",
        ),
    ],
)
def test_anchors_that_hold_nothing_are_refused(run_config, keys, message):
    with pytest.raises(ConfigError, match=message):
        own(run_config, **keys)


def test_a_stopped_prefix_leaves_routers_without_a_gradient(run_config):
    message = "stop_gradient_prefix and optimization.router_loss_weight exclude each other"
    with pytest.raises(ConfigError, match=r"own\.all: " + message):
        own(run_config, stop_gradient_prefix=True, optimization={"router_loss_weight": 0.01})
    chunked = run_config.model_copy(update={"training": TrainingConfig(mlp_chunk_tokens=8)})
    with pytest.raises(ConfigError, match=r"own\.all: training\.mlp_chunk_tokens and optimization\.router_loss_weight"):
        own(chunked, optimization={"router_loss_weight": 0.01})
    stopped = KeyStageConfig(stop_gradient_prefix=True)
    balanced = run_config.optimization.model_copy(update={"router_loss_weight": 0.01})
    with pytest.raises(ConfigError, match="key_stage: " + message):
        resolve_strategies(run_config.model_copy(update={"key_stage": stopped, "optimization": balanced}))


def test_the_parts_of_a_projected_loss_are_segments_with_their_tags(run_config):
    weights = {"prompt": 0.2, "reasoning": 1.0, "answer": 1.0}
    stage = own(run_config, weights=weights, project_conflicts=True)

    def parts(stage, **counts):
        found = stage.loss_parts(NAMES, [counts.get(name, 0) for name in NAMES])
        return {name: {NAMES[number] for number in ids} for name, ids in found.items()}

    of_answer = {"answer.open", "answer", "answer.close", "end_of_turn"}
    of_reasoning = {"reasoning.open", "reasoning", "reasoning.close"}
    found = parts(stage, prompt=3, reasoning=9, answer=1)
    assert found == {"prompt": {"prompt"}, "reasoning": of_reasoning, "answer": of_answer}
    assert parts(stage, prompt=3, answer=1) == {"prompt": {"prompt"} | of_reasoning, "answer": of_answer}
    assert parts(stage, answer=1) == {"answer": set(NAMES)}
    assert parts(own(run_config, weights=weights), reasoning=9, answer=1) == {"": set(NAMES)}
    assert own(run_config, project_conflicts=False) == own(run_config)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"weights": {"answer": 1.0, "answer.open": 1.0, "end_of_turn": 1.0}},
            r"own\.all: project_conflicts needs two trained segments or more, and this stage trains only answer; give",
        ),
        ({"stop_gradient_prefix": True}, r"own\.all: project_conflicts and stop_gradient_prefix exclude each other"),
        ({"anchor": {"weight": 1}}, r"own\.all: project_conflicts and anchor exclude each other"),
        (
            {"optimization": {"router_loss_weight": 0.01}},
            r"own\.all: project_conflicts and optimization\.router_loss_weight exclude each other",
        ),
    ],
)
def test_gradients_that_cannot_be_projected_are_refused(run_config, keys, message):
    with pytest.raises(ConfigError, match=message):
        own(run_config, project_conflicts=True, **keys)


def test_a_key_stage_projects_the_gradients_of_several_key_segments(run_config):
    config = run_config.model_copy(update={"key_stage": KeyStageConfig(project_conflicts=True)})
    with pytest.raises(ConfigError, match=r"key_stage: project_conflicts needs two trained segments or more"):
        resolve_strategies(config)
    segments = [{"name": name, "key": name != "reasoning"} for name in ("reasoning", "action", "answer")]
    several = config.model_copy(update={"contract": ResponseContract.model_validate({"segments": segments})})
    full, key = resolve_strategies(several)[3].stages
    assert (full.project_conflicts, key.project_conflicts) == (False, True)
    assert not resolve_strategies(several)[2].stages[0].project_conflicts, "key-tag continues from nothing"
    assert "project_conflicts" not in KeyStageConfig().model_dump()
    on_nvme = several.training.model_copy(update={"zero": ZeroConfig(offload="nvme", nvme_path="/nvme")})
    with pytest.raises(ConfigError, match=r"key_stage: gradients on NVMe cannot be set; remove project_conflicts, or"):
        resolve_strategies(several.model_copy(update={"training": on_nvme}))


def test_keys_of_a_stage_that_no_strategy_has_are_not_looked_at(run_config):
    asked = {"key_stage": KeyStageConfig(interpolate=(0.5,)), "strategies": ("sft", "sft-tag", "key-tag")}
    assert len(resolve_strategies(run_config.model_copy(update=asked))) == 3
    with pytest.raises(ValueError, match="each part must be there once"):
        KeyStageConfig(interpolate=(0.5, 0.5))


def test_a_stage_trains_on_responses_of_the_model_before_it(run_config):
    own_data = OwnDataConfig.model_validate({"from": "previous", "samples": 2})
    config = run_config.model_copy(update={"key_stage": KeyStageConfig(data=own_data)})
    assert [stage.data for stage in resolve_strategies(config)[3].stages] == [None, own_data]
    assert resolve_strategies(config)[2].stages[0].data is None, "key-tag continues from nothing"
    assert own_data.model_dump()["from"] == "previous", "as it is written in a configuration"
    assert "data" not in KeyStageConfig().model_dump()
    with pytest.raises(ConfigError, match=r"own\.all: no stage comes before the first one; remove its key data"):
        own(run_config, data={"from": "previous"})
    endpoint = {"backend": "endpoint", "endpoint": {"url": "http://127.0.0.1:1/v1", "model": "m"}}
    served = config.model_copy(update={"evaluation": EvaluationConfig.model_validate(endpoint)})
    with pytest.raises(ConfigError, match=r"key_stage: data.from=previous needs a backend that loads the model"):
        resolve_strategies(served)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"from": "first"}, "Input should be 'previous'"),
        ({"samples": 4}, "Field required"),
        ({"from": "previous", "temperature": 0}, "temperature: 0 makes all samples identical; set samples: 1"),
        ({"from": "previous", "otherwise": "drop"}, "Input should be 'reference' or 'skip'"),
    ],
)
def test_own_data_that_mean_nothing_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        KeyStageConfig.model_validate({"data": data})


def test_a_replayed_step_is_not_anchored():
    anchor = Anchor(0.5, (False, True, False), 4)
    stage = Stage("key", (0.0, 0.0, 1.0), OptimizationConfig(), replay=Replay(2, (0.0, 1.0, 1.0)), anchor=anchor)
    assert [stage.acting(step, (9, 9, 9)).anchor for step in range(4)] == [anchor, None, anchor, None]
