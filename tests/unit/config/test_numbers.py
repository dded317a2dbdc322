"""Every numeric key of the configuration, with numbers that nobody means."""

import subprocess
import sys
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError, create_model

from sftkey_dist.config import load_config
from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.segment import SegmentConfig
from sftkey_dist.config.strategy import OptimizationOverrides
from sftkey_dist.config.study import StudyConfig
from sftkey_dist.config.tune import TuneConfig
from sftkey_dist.errors import ConfigError

HUGE = 10**30
STRANGE = {"0": 0, "-1": -1, "huge": HUGE, "NaN": float("nan"), "infinity": float("inf"), "tiny": 1e-300}
COUNTS_NONE = "none, which is a number of them"
TURNS_OFF = "turns it off"
A_SHARE = "a share that is none"
MEANINGFUL: dict[tuple[str, str], str] = {
    ("RunConfig.seed", "0"): "a seed as good as any",
    ("SourceConfig.seed", "0"): "a seed as good as any",
    ("StudyConfig.seeds", "0"): "a seed as good as any",
    ("TuneConfig.seed", "0"): "a seed as good as any",
    ("SplitConfig.seed", "0"): "a seed as good as any",
    ("DataConfig.max_bad_row_share", "0"): "preparation stops at the first malformed row",
    ("DataConfig.max_bad_row_share", "tiny"): "the same",
    ("OptimizationConfig.min_learning_rate_ratio", "0"): "the cosine ends at 0",
    ("OptimizationConfig.min_learning_rate_ratio", "tiny"): "the same",
    ("OptimizationOverrides.min_learning_rate_ratio", "0"): "the cosine ends at 0",
    ("OptimizationOverrides.min_learning_rate_ratio", "tiny"): "the same",
    ("OptimizationConfig.decay_ratio", "tiny"): "a decay of one step, as every ratio has at least",
    ("OptimizationOverrides.decay_ratio", "tiny"): "the same",
    ("TrainingConfig.profile_steps", "0"): "the first step",
    ("OptimizationConfig.warmup_ratio", "0"): "no warm-up",
    ("OptimizationConfig.warmup_ratio", "tiny"): "a warm-up of one step, as every ratio above 0 has at least",
    ("OptimizationOverrides.warmup_ratio", "0"): "no warm-up",
    ("OptimizationOverrides.warmup_ratio", "tiny"): "a warm-up of one step, as every ratio above 0 has at least",
    ("OptimizationConfig.weight_decay", "0"): TURNS_OFF,
    ("OptimizationConfig.weight_decay", "tiny"): "a decay that rounds to none",
    ("OptimizationOverrides.weight_decay", "0"): TURNS_OFF,
    ("OptimizationOverrides.weight_decay", "tiny"): "a decay that rounds to none",
    ("OptimizationConfig.router_loss_weight", "0"): TURNS_OFF,
    ("OptimizationOverrides.router_loss_weight", "0"): TURNS_OFF,
    ("OptimizationConfig.betas", "0"): "AdamW without that moment's memory",
    ("OptimizationConfig.betas", "tiny"): "the same",
    ("OptimizationConfig.max_grad_norm", "0"): TURNS_OFF,
    ("MuonConfig.momentum", "0"): "Muon without the memory of earlier gradients",
    ("MuonConfig.momentum", "tiny"): "the same",
    ("StageConfig.weights", "0"): "a segment that is not trained",
    ("Objective.min_probability", "0"): TURNS_OFF,
    ("ZeroConfig.max_gathered_gib", "0"): "one layer at a time",
    ("ZeroConfig.max_gathered_gib", "tiny"): "the same",
    ("LoraConfig.dropout", "0"): TURNS_OFF,
    ("LoraConfig.dropout", "tiny"): A_SHARE,
    ("TrainingConfig.max_failures", "0"): COUNTS_NONE,
    ("ValidationConfig.num_examples", "0"): COUNTS_NONE,
    ("ClusterConfig.gpus_per_worker", "0"): "workers on CPUs",
    ("ClusterConfig.wait_for_nodes_seconds", "0"): "no wait",
    ("ClusterConfig.wait_for_nodes_seconds", "tiny"): "no wait",
    ("CapabilitiesConfig.num_fewshot", "0"): COUNTS_NONE,
    ("EvaluationConfig.swapped_reasoning", "0"): TURNS_OFF,
    ("EvaluationConfig.alpha", "0"): "the score is the format",
    ("EvaluationConfig.alpha", "tiny"): A_SHARE,
    ("OwnDataConfig.temperature", "0"): "greedy",
    ("OwnDataConfig.top_p", "tiny"): "the likeliest token alone",
    ("SamplingConfig.temperature", "0"): "greedy",
    ("SamplingConfig.top_p", "tiny"): "the likeliest token alone",
    ("EndpointConfig.max_retries", "0"): COUNTS_NONE,
    ("ServedModelConfig.max_retries", "0"): COUNTS_NONE,
    ("TrackingConfig.max_model_gib", "0"): "logs none",
    ("TrackingConfig.max_model_gib", "tiny"): "logs none",
    **{
        ("SearchSpace.uniform", value): "a bound, which the tuned key takes or refuses"
        for value in ("0", "-1", "huge", "tiny")
    },
    **{("SearchSpace.loguniform", value): "the same" for value in ("huge", "tiny")},
    **{
        (f"NumberRange.{end}", value): "a bound of an answer, which is any number"
        for end in ("min", "max")
        for value in ("0", "-1", "huge", "tiny")
    },
}
"""What a key takes of these, and why; every other is refused."""


def sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections(part)]


def is_numeric(annotation: Any) -> bool:
    if annotation in (int, float):
        return True
    return get_origin(annotation) is not Literal and any(map(is_numeric, get_args(annotation)))


def all_sections(root: type[BaseModel], found: dict[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    if root.__name__ not in found:
        found[root.__name__] = root
        for field in root.model_fields.values():
            for section in sections(field.annotation):
                all_sections(section, found)
    return found


SECTIONS = {
    n: s for root in (RunConfig, StudyConfig, TuneConfig, SegmentConfig) for n, s in all_sections(root, {}).items()
}
KEYS = [
    f"{name}.{key}"
    for name, section in SECTIONS.items()
    for key, field in section.model_fields.items()
    if is_numeric(field.annotation)
]


def holding(annotation: Any, number: float) -> list[Any]:
    """Values of a key in which the number stands, in each place that there is for one."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in (int, float):
        return [number]
    if origin is Annotated:
        return holding(parts[0], number)
    if origin is dict:
        return [{"answer": value} for value in holding(parts[1], number)]
    if origin is tuple and parts[-1] is ...:
        return [[value] for value in holding(parts[0], number)]
    if origin is tuple:
        return [[number if i == place else 0.9 for i in range(len(parts))] for place in range(len(parts))]
    return next(holding(part, number) for part in parts if is_numeric(part))


@cache
def section_of(key: str) -> type[BaseModel]:
    """A section that has nothing but this key."""
    name, _, key = key.partition(".")
    field = SECTIONS[name].model_fields[key]
    return create_model("Alone", __config__=SECTIONS[name].model_config, **{key: (field.annotation, field)})


def takes(key: str, number: float) -> bool:
    alone = section_of(key)
    ((name, field),) = alone.model_fields.items()
    taken = []
    for value in holding(field.annotation, number):
        try:
            alone.model_validate({name: value})
            taken.append(True)
        except ValidationError:
            taken.append(False)
    assert len(set(taken)) == 1, "the places of a key differ"
    return taken[0]


@pytest.mark.parametrize("key", KEYS)
def test_a_numeric_key_takes_no_number_that_nobody_means(key):
    taken = {name for name, number in STRANGE.items() if takes(key, number)}
    assert taken == {name for of_key, name in MEANINGFUL if of_key == key}


def test_the_walk_finds_the_numbers_of_every_part():
    assert {key for key, _ in MEANINGFUL} <= set(KEYS)
    assert len(KEYS) > 75
    assert {"SegmentConfig", "EmbeddedModelConfig", "GuardConfig", "NumberRange"} <= SECTIONS.keys()


BASE = """
run_dir: runs/x
model: {path: ./model}
data:
  train: {adapter: decision_memos, limit: 9}
  test: {adapter: decision_memos, split: test, limit: 9}
"""
REFUSED = {
    "seed=4294967296": "at most 4294967295, got 4294967296",
    "data.train.seed=-1": "at least 0, got -1",
    "optimization.num_epochs=null": "expected a whole number, found null",
    "key_stage.optimization={num_epochs: null}": "num_epochs: null is not allowed; leave the key out",
    "key_stage.optimization={num_epochs: null, max_steps: 5}": "num_epochs: null is not allowed; leave the key out",
    "key_stage.optimization={learning_rate: null}": "learning_rate: null is not allowed",
    "optimization.betas=[0.9, 1.0]": "less than 1, got 1.0",
    "optimization.learning_rate=.inf": "expected a finite number, found inf",
    "optimization.learning_rate=1e-320": "at least 1e-12, got 1e-320",
    "optimization.max_grad_norm=1e-40": "must be 0 or at least 1e-06, got 1e-40",
    "training.checkpoint_every_steps=0": "at least 1, got 0",
    "training.collective_timeout_seconds=99999999999": "at most 2592000, got 99999999999",
    "data.max_length_tokens=1": "at least 8, got 1",
    "training.micro_batch_tokens=512": "data.max_length_tokens=1024 exceeds training.micro_batch_tokens=512: raise",
    "strategies=[]": "needs at least one entry",
    "data.train=[]": "at least 1 item",
    "contract={segments: []}": "at least one segment must have key: true",
    "strategies=[{name: a, stages: [{name: b, weights: {answer: 2e6}}]}]": "at most 1000000, got 2000000.0",
    "strategies=[{name: a, stages: [{name: b, weights: {answer: 1e-9}}]}]": "0 or at least 1e-06, got 1e-09",
    "contract={segments: [{name: a, key: true, weight: 1e7}]}": "at most 1000000, got 10000000.0",
    "training.zero.secondary_partition_ranks=3": "=3 must divide cluster.num_workers=2",
    "training.sequence_parallel_ranks=4": "=4 must divide cluster.num_workers=2",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_what_cannot_train_is_refused_in_a_line_with_key_value_and_remedy(tmp_path, setting):
    (tmp_path / "run.yaml").write_text(BASE)
    with pytest.raises(ConfigError) as error:
        load_config([tmp_path / "run.yaml"], [setting])
    message = str(error.value)
    assert REFUSED[setting] in message
    assert "\n" not in message
    key = setting.partition("=")[0].split(".")[-1]
    assert key in message


@pytest.mark.parametrize(
    "setting",
    ["key_stage.optimization={max_steps: null}", "optimization.global_batch_size=100000", "optimization.betas=[0, 0]"],
)
def test_what_can_train_is_taken(tmp_path, setting):
    (tmp_path / "run.yaml").write_text(BASE)
    load_config([tmp_path / "run.yaml"], [setting])


def test_a_null_that_is_not_inherited_is_named_in_every_override():
    for key in OptimizationOverrides.model_fields.keys() - {"max_steps"}:
        with pytest.raises(ValidationError, match=f"{key}: null is not allowed"):
            OptimizationOverrides.model_validate({key: None})


def test_a_refused_number_ends_the_command_with_two(tmp_path):
    (tmp_path / "run.yaml").write_text(BASE)
    program = "from sftkey_dist.cli import main; main()"
    command = [sys.executable, "-c", program, "plan", str(tmp_path / "run.yaml"), "seed=4294967296"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "seed: must be at most 4294967295, got 4294967296" in done.stderr


@pytest.mark.parametrize("key", ["evaluation.max_new_tokens", "optimization.learning_rate", "optimization.max_steps"])
def test_a_truth_value_is_no_number(key, tmp_path):
    (tmp_path / "run.yaml").write_text(BASE)
    with pytest.raises(ConfigError, match=rf"{key}: must be a number, found true"):
        load_config([tmp_path / "run.yaml"], [f"{key}=True"])
