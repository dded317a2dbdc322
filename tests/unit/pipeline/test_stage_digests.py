"""A stage is trained again when, and only when, something changed that its result depends on."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import yaml

from sftkey_dist.config import load_config
from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.training import LoraConfig, TrainingConfig
from sftkey_dist.models.load import model_fingerprint
from sftkey_dist.pipeline.changes import changes_in_words
from sftkey_dist.pipeline.preparation import Preparation
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.run_plan import plan_run
from sftkey_dist.pipeline.stages import PlannedStage, plan_stages
from sftkey_dist.pipeline.train import unreached_in_words
from sftkey_dist.strategy import Stage, resolve_strategies
from sftkey_dist.training.job import StageSettings

CHANGES = {
    "seed": 1,
    "data.train.0.limit": 48,
    "data.train.0.weight": 2.0,
    "data.train.0.seed": 1,
    "data.max_length_tokens": 300,
    "contract.segments.0.tag": "Analysis",
    "contract.segments.0.key": True,
    "contract.segments.1.tag": "Decision",
    "contract.segments.0.weight": 0.5,
    "contract.segments.1.weight": 2.0,
    "contract.container": "json",
    "prompt.template": "plain",
    "prompt.system": "Be brief.",
    "optimization.global_batch_size": 16,
    "optimization.num_epochs": 2,
    "optimization.look_ahead_steps": 2,
    "optimization.max_steps": 1,
    "optimization.learning_rate": 2e-5,
    "optimization.min_learning_rate_ratio": 0.2,
    "optimization.warmup_ratio": 0.5,
    "optimization.weight_decay": 0.1,
    "optimization.betas": [0.8, 0.95],
    "optimization.epsilon": 1e-7,
    "optimization.max_grad_norm": 0.5,
    "key_stage.tags": True,
    "key_stage.end_of_turn": True,
    "key_stage.stop_gradient_prefix": True,
    "key_stage.learning_rate_ratio": 0.1,
    "key_stage.optimization": {"num_epochs": 3},
    "training.zero.reduce_precision": "bfloat16",
    "training.precision": "bfloat16",
    "training.lora.rank": 8,
    "training.lora.alpha": 8.0,
    "training.lora.dropout": 0.1,
    "training.lora.target_modules": ["q_proj"],
    "validation.num_examples": 12,
    "validation.guard.every_steps": 5,
    "validation.guard.num_examples": 3,
    "validation.guard.signal": "teacher_forced",
    "validation.guard.keep": "last",
    "validation.guard.patience": 2,
    "evaluation.max_new_tokens": 32,
    "evaluation.stop_at": "closing_tag",
    "evaluation.answer_check": "numeric",
    "evaluation.answer_checks": {"answer": "numeric"},
    "evaluation.alpha": 0.5,
}
"""Another value of every key that the result depends on."""
CHANGES_NOTHING = {
    "run_dir": "runs/other",
    "model.attention": "sdpa",
    "data.train.0.name": "other",
    "data.test.0.name": "other",
    "data.test.0.limit": 4,
    "data.test.0.weight": 2.0,
    "data.test.0.seed": 1,
    "data.max_bad_row_share": 0.5,
    "data.drop_overlap": True,  # of which these data have none: the tokens decide
    "data.store_dir": "elsewhere",
    "data.num_workers": 1,
    "data.shard_rows": 40,
    "contract.delimiter": "\nSo: ",  # the tagged form has none
    "contract.segments.0.delimiter": "\nFirst: ",
    "contract.segments.1.delimiter": "\nThen: ",
    "training.export_precision": "float32",  # as it is anyway
    "training.keep_masters": True,
    "training.micro_batch_tokens": 2048,
    "training.sequence_parallel_ranks": 2,
    "training.zero.max_gathered_gib": 0.0,
    "training.zero.reduce_bucket_elements": 1000,
    "training.zero.sub_group_elements": 1000,
    "training.zero.secondary_partition_ranks": 2,
    "training.gradient_checkpointing": True,
    "training.logit_chunk_positions": 64,
    "training.checkpoint_every_steps": 7,
    "training.checkpoint_storage": "s3://bucket/x",
    "training.segment_metrics_every_steps": 3,
    "training.gradient_cosines_every_steps": 3,
    "training.collectives_every_steps": 3,
    "training.profile_steps": [1],
    "training.max_failures": 0,
    "training.collective_timeout_seconds": 60,
    "training.storage_timeout_seconds": 60,
    "validation.every_steps": 3,
    "cluster.num_workers": 3,
    "cluster.min_workers": 1,
    "cluster.cpus_per_worker": 2,
    "cluster.wait_for_nodes_seconds": 5.0,
    "cluster.start_timeout_seconds": 60.0,
    "cluster.environment": {"A": "b"},
    "cluster.network_interface": "eth0",
    "cluster.address": "auto",
    "cluster.allow_unauthenticated": True,
    "evaluation.sampling.num_samples": 1,
    "evaluation.sampling.temperature": 0.5,
    "evaluation.sampling.top_p": 0.5,
    "evaluation.batch_size": 3,
    "evaluation.limit": 3,
    "evaluation.num_workers": 1,
    "tracking.enabled": False,
    "tracking.uri": "http://127.0.0.1:1",
    "tracking.experiment": "other",
    "tracking.system_metrics": False,
    "tracking.max_model_gib": 0.0,
}
NOT_VARIED = {
    "data.train.0.split": "there are two, and both are in use",
    "data.test.0.split": "likewise",
    "contract.segments.0.name": "the columns of the data",
    "contract.segments.1.name": "likewise",
    "contract.special_token_tags": "another model, which has no adapters",
    "evaluation.gpus_per_model": "needs accelerators",
    "strategies": "a list of names, each of which has stages of its own",
    "model.path": "another model; see below",
    "model.revision": "of the hub",
    "model.embedded": "another model",
    "model.trust_remote_code": "the code of the model, which is among its files",
    "training.offload_activations": "needs recomputation",
    "training.mlp_chunk_tokens": "goes without adapters",
    "training.zero.offload": "goes with the next two",
    "training.zero.offload_weights": "needs an offload",
    "training.zero.nvme_path": "needs an offload",
    "contract.segments.1.key": "one must be",
    "cluster.gpus_per_worker": "says the precision; see `test_the_export_counts_where_it_is_rounded`",
    "contract.segments.0.required": "optional segments need delimiters of their own",
    "contract.segments.1.required": "likewise",
    "contract.segments.0.value": "of a JSON object",
    "contract.segments.1.value": "likewise",
    "contract.segments.0.check": "refuses rows; the same tokens otherwise",
    "contract.segments.1.check": "likewise",
    "prompt.plain": "of the plain template",
    "evaluation.backend": "needs a server, or vLLM",
    "evaluation.endpoint": "goes with its backend",
    "evaluation.judge": "needs one",
    **{
        f"data.{name}.0.{key}": "of other adapters"
        for name in ("train", "test")
        for key in (
            *("adapter", "path", "subset", "revision", "lists_points", "prompt", "columns"),
            *("reasoning_length", "decision_rule"),
            *(
                "response",
                "messages",
                "roles",
                "trained_turns",
                "rules",
                "labels",
                "loss_weight_column",
                "answer_check",
            ),
        )
    },
}
NEEDS_PREPARATION = ("data.", "contract.", "prompt.", "run_dir")


@pytest.fixture(scope="module")
def base(tmp_path_factory, tiny_model) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("digests")
    settings = {
        "run_dir": str(folder / "run"),
        "model": {"path": str(tiny_model)},
        "data": {
            "train": [{"adapter": "decision_memos", "limit": 64}],
            "test": [{"adapter": "decision_memos", "split": "test", "limit": 8}],
            "store_dir": str(folder / "store"),
        },
        "strategies": ["sftkey-tag"],
        "validation": {"num_examples": 8, "guard": {"num_examples": 4}},
        "training": {"lora": {}, "precision": "float32"},
    }
    return RunConfig.model_validate(settings).model_dump(mode="json")


@pytest.fixture(scope="module")
def prepared(base) -> Preparation:
    return prepare(RunConfig.model_validate(base))


def leaves(values: Any, prefix: str = "") -> Iterator[str]:
    children = dict(enumerate(values)) if isinstance(values, list) else values
    if isinstance(children, dict) and children and not isinstance(children.get(0, {}), str | float):
        for key, value in children.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix


def changed(base: dict[str, Any], key: str, value: Any) -> RunConfig:
    settings = json.loads(json.dumps(base))
    *parents, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
    place = settings
    for part in parents:
        place = place[part]
    place[last] = value
    return RunConfig.model_validate(settings)


def digests(config: RunConfig, prepared: Preparation | None = None) -> list[str]:
    found = replace(prepared, strategies=resolve_strategies(config)) if prepared else prepare(config)
    return [planned.digest for planned in plan_stages(config, found)["sftkey-tag"]]


def test_every_key_is_in_one_of_the_lists(base):
    listed = [*CHANGES, *CHANGES_NOTHING, *NOT_VARIED]
    assert sorted(listed) == sorted(set(listed))
    assert set(leaves(base)) == set(listed)


@pytest.mark.parametrize("key", [*CHANGES, *CHANGES_NOTHING])
def test_a_key_changes_the_digest_or_provably_nothing(base, prepared, key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = changed(base, key, (CHANGES | CHANGES_NOTHING)[key])
    again = None if key.startswith(NEEDS_PREPARATION) else prepared
    before = digests(RunConfig.model_validate(base), prepared)
    assert (digests(config, again) != before) == (key in CHANGES)


def test_the_export_counts_where_it_is_rounded(base, prepared):
    in_bfloat16 = changed(base, "training.precision", "bfloat16")
    training = TrainingConfig(precision="bfloat16", export_precision="float32", lora=in_bfloat16.training.lora)
    whole = in_bfloat16.model_copy(update={"training": training})
    assert digests(in_bfloat16, prepared) != digests(whole, prepared)


@pytest.mark.parametrize("key", sorted(LoraConfig.newer_keys))
def test_a_kind_of_adapter_counts_where_it_is_used(base, prepared, key):
    before = digests(RunConfig.model_validate(base), prepared)
    assert digests(changed(base, f"training.lora.{key}", True), prepared) != before
    assert digests(changed(base, f"training.lora.{key}", False), prepared) == before


def test_muon_counts_where_it_is_used(base, prepared):
    def digest(**keys):
        whole = {"training": {"precision": "float32"}, "optimization": base["optimization"] | keys}
        return digests(RunConfig.model_validate(base | whole), prepared)[0]

    kinds = ({"learning_rate_ratio": 5}, {"learning_rate_ratio": 9}, {"learning_rate_ratio": 9, "momentum": 0.9})
    assert len({digest(), *(digest(muon=muon) for muon in kinds)}) == 4
    assert digest(muon=None) == digest()


def test_a_limit_that_binds_nothing_changes_nothing(base, prepared):
    before = digests(RunConfig.model_validate(base), prepared)
    assert digests(changed(base, "optimization.max_steps", 10_000), prepared) == before
    assert digests(changed(base, "data.max_length_tokens", 4000)) == before
    assert digests(changed(base, "data.drop_duplicates", True)) == before  # these data have none: the tokens decide


def test_guided_decoding_changes_no_stage_and_is_written_only_where_one_asks_for_it(base, prepared):
    assert "guided" not in base["evaluation"]
    config = changed(base, "evaluation.guided", True)
    assert config.model_dump(mode="json")["evaluation"] == base["evaluation"] | {"guided": True}
    assert digests(config, prepared) == digests(RunConfig.model_validate(base), prepared)


def test_other_trackers_change_nothing_and_are_written_only_where_one_asks_for_them(base, prepared):
    assert not base["tracking"].keys() & {"also", "tensorboard", "wandb"}
    others = {"also": ["tensorboard"], "tensorboard": {"folder": "events"}}
    others["wandb"] = {"project": "other", "entity": "me", "mode": "offline"}
    config = RunConfig.model_validate(base | {"tracking": base["tracking"] | others})
    assert config.model_dump(mode="json")["tracking"] == base["tracking"] | others
    assert digests(config, prepared) == digests(RunConfig.model_validate(base), prepared)


def test_capabilities_change_nothing_and_are_written_only_where_one_asks_for_them(base, prepared):
    assert "capabilities" not in base["evaluation"]
    wanted = {"tasks": ["arc_easy"], "task_dir": None, "limit": 3, "num_fewshot": None, "batch_size": 16}
    config = changed(base, "evaluation.capabilities", wanted)
    assert config.model_dump(mode="json")["evaluation"] == base["evaluation"] | {"capabilities": wanted}
    assert digests(config, prepared) == digests(RunConfig.model_validate(base), prepared)


def test_swapped_reasoning_changes_nothing_and_is_written_only_where_one_asks_for_it(base, prepared):
    assert "swapped_reasoning" not in base["evaluation"]
    config = changed(base, "evaluation.swapped_reasoning", 5)
    assert config.model_dump(mode="json")["evaluation"] == base["evaluation"] | {"swapped_reasoning": 5}
    assert digests(config, prepared) == digests(RunConfig.model_validate(base), prepared)
    folders = [
        [planned.evaluation.folder for planned in plan_run(of, prepared).strategies]
        for of in (config, RunConfig.model_validate(base))
    ]
    assert folders[0] == folders[1], "nothing is generated again"


def settings_of(planned: PlannedStage) -> dict[str, Any]:
    return {name: getattr(planned.job, name) for name in StageSettings.model_fields}


def test_a_new_key_counts_until_it_is_named(prepared, base):
    class Extended(StageSettings):
        new: int = 0

    (planned, _) = plan_stages(RunConfig.model_validate(base), prepared)["sftkey-tag"]
    found = [Extended(**settings_of(planned), new=new).inputs(2) for new in (0, 1)]
    assert found[0] != found[1]


def test_a_new_key_of_a_stage_counts_until_it_is_named(prepared, base):
    @dataclass(frozen=True)
    class ExtendedStage(Stage):
        new: int = 0

    class Extended(StageSettings):
        stage: ExtendedStage

    (planned, _) = plan_stages(RunConfig.model_validate(base), prepared)["sftkey-tag"]
    own = vars(planned.stage)
    settings = settings_of(planned)
    found = [Extended(**settings | {"stage": ExtendedStage(**own, new=new)}).inputs(2) for new in (0, 1)]
    assert found[0] != found[1]
    assert found[0] == StageSettings(**settings).inputs(2) | {"new": 0}


def test_what_a_stage_of_ones_own_minimises_counts(base, prepared):
    def digest(**keys):
        weights = {"weights": {"reasoning": 1.0, "answer": 1.0, "prompt": keys.pop("prompt", 0.0)}}
        own = {"name": "sftkey-tag", "stages": [{"name": "a", **weights}, {"name": "b", **weights, **keys}]}
        return digests(RunConfig.model_validate(base | {"strategies": [own]}), prepared)[-1]

    kinds = ({"answer": "dft"}, {"answer": "entropy"}, {"answer": {"kind": "entropy", "exponent": 2}})
    found = [digest(), digest(normalize="segments"), *(digest(objective=kind) for kind in kinds)]
    found += [digest(replay={"every": number}) for number in (2, 3)]
    found += [digest(project_conflicts=True)]
    found += [digest(interpolate=parts) for parts in ([0.5], [0.5, 0.7])]
    found += [digest(anchor={"weight": weight, "top_k": number}) for weight, number in ((1, 4), (1, 8), (2, 8))]
    found += [digest(prompt=0.1)]
    found += [digest(optimization={"schedule": name}) for name in ("linear", "wsd")]
    found += [digest(optimization={"router_loss_weight": 0.01})]
    assert len(set(found)) == len(found)
    assert digest(objective={"answer": "nll"}, normalize="tokens", project_conflicts=False) == found[0]


OWN_DATA = ({"samples": 2}, {"otherwise": "skip"}, {"temperature": 0.5}, {"top_p": 0.5})
CHANGES_OF_OWN_RESPONSES = {
    "evaluation.max_new_tokens": 32,
    "evaluation.stop_at": "closing_tag",
    "evaluation.batch_size": 3,
    "evaluation.answer_check": "numeric",
    "data.max_length_tokens": 1000,  # the references are shorter, and responses need not be
}
NO_CHANGES_OF_OWN_RESPONSES = {
    "evaluation.num_workers": 1,
    "evaluation.alpha": 0.5,
    "evaluation.guided": True,
    "evaluation.swapped_reasoning": 5,
    "data.train.0.name": "other",
}


def test_what_the_responses_depend_on_that_a_stage_samples_counts(base, prepared):
    def digest(key="seed", value=0, data=None):
        weights = {"weights": {"reasoning": 1.0, "answer": 1.0}}
        own = {"name": "sftkey-tag", "stages": [{"name": "a", **weights}, {"name": "b", **weights}]}
        if data is not None:
            own["stages"][1]["data"] = {"from": "previous", **data}
        unguarded = base | {"strategies": [own], "validation": {"num_examples": 8}}
        return digests(changed(RunConfig.model_validate(unguarded).model_dump(mode="json"), key, value), prepared)

    references, own = digest(), digest(data={})
    found = [references[1], own[1], *(digest(data=data)[1] for data in OWN_DATA)]
    found += [digest(*change, data={})[1] for change in CHANGES_OF_OWN_RESPONSES.items()]
    assert len(set(found)) == len(found)
    assert references[0] == own[0], "the stage before is the same"
    assert all(digest(*change, data={}) == own for change in NO_CHANGES_OF_OWN_RESPONSES.items())
    assert all(digest(*change)[1] == references[1] for change in CHANGES_OF_OWN_RESPONSES.items())
    greedy = {"samples": 1, "temperature": 0}
    assert digest("evaluation.batch_size", 3, data=greedy) == digest(data=greedy), "no random numbers are drawn"


def test_files_list_the_inputs_of_a_stage_in_an_order_that_stays(prepared, base):
    (planned, _) = plan_stages(RunConfig.model_validate(base), prepared)["sftkey-tag"]
    assert list(StageSettings(**settings_of(planned)).inputs(2)) == [
        *("weights", "seed", "optimization", "training", "validation", "guard", "stop_gradient_prefix"),
        *("precision", "end_of_turn_id", "num_steps", "export_precision"),
    ]


def test_a_model_is_what_is_read_of_it_wherever_it_lies(tiny_model, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    (copy / "README.md").write_text("a model")
    (copy / "provenance.json").write_text("{}")
    (copy / "response_schema.json").write_text("{}")
    weights = copy / "model.safetensors"
    os.utime(weights, (1, 1))
    assert model_fingerprint(copy) == model_fingerprint(tiny_model)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert model_fingerprint(copy) != model_fingerprint(tiny_model)


def test_large_files_are_read_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sftkey_dist.models.digests._REMEMBERED_FROM_BYTES", 1)
    read = []
    monkeypatch.setattr("sftkey_dist.models.digests.digest_file", lambda file: read.append(file) or "d" * 64)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    model_fingerprint(tmp_path)
    model_fingerprint(tmp_path)
    assert len(read) == 1
    (tmp_path / "model.safetensors").write_bytes(b"others.")
    model_fingerprint(tmp_path)
    assert len(read) == 2
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    model_fingerprint(tmp_path)
    assert len(read) == 3


def test_a_stage_under_two_names_is_one(tmp_path, tiny_model):
    file = tmp_path / "run.yaml"
    weights = {"reasoning": 1.0, "tags": 1.0, "answer": 1.0, "end_of_turn": 1.0}
    file.write_text(
        yaml.safe_dump(
            {
                "run_dir": str(tmp_path / "run"),
                "model": {"path": str(tiny_model)},
                "data": {
                    "train": {"adapter": "decision_memos", "limit": 16},
                    "test": {"adapter": "decision_memos", "split": "test", "limit": 4},
                    "store_dir": str(tmp_path / "store"),
                },
                "strategies": [
                    {"name": "one", "stages": [{"name": "first", "weights": weights}]},
                    {"name": "two", "stages": [{"name": "second", "weights": dict(weights)}]},
                ],
            }
        )
    )
    config = load_config([file])
    found = prepare(config)
    ((one,), (two,)) = plan_stages(config, found).values()
    assert (one.digest, one.directory.path, two.shared_with) == (two.digest, two.directory.path, "one")
    one.directory.path.mkdir(parents=True)
    ((_,), (alone,)) = plan_stages(config, replace(found, strategies=found.strategies[::-1])).values()
    assert alone.directory.path == one.directory.path, "another name finds what was trained"


def test_what_changed_is_named_when_a_stage_is_trained_again(base, prepared):
    before = plan_stages(RunConfig.model_validate(base), prepared)["sftkey-tag"][0]
    before.directory.path.mkdir(parents=True, exist_ok=True)
    before.directory.summary.write_text(json.dumps({"inputs": before.inputs}))
    assert list(changes_in_words(prepared.run, before, [before])) == []
    config = changed(base, "optimization.learning_rate", 2e-5)
    now = plan_stages(config, replace(prepared, strategies=resolve_strategies(config)))["sftkey-tag"][0]
    (line,) = changes_in_words(prepared.run, now, [now])
    assert line.startswith(
        "this has changed since it was last trained: optimization.learning_rate (1e-05 before, 2e-05 now);"
    )
    assert before.directory.path.name in line
    assert list(changes_in_words(prepared.run, now, [before, now])) == [], "another strategy's stage of the same name"
    settings = base["optimization"] | {"learning_rate": 2e-5, "num_epochs": 2 * config.optimization.num_epochs}
    config = changed(base, "optimization", settings)
    longer = plan_stages(config, replace(prepared, strategies=resolve_strategies(config)))["sftkey-tag"][0]
    (line,) = changes_in_words(prepared.run, longer, [longer])
    steps = f"the number of steps ({before.num_steps} before, {longer.num_steps} now)"
    assert f"2e-05 now) and {steps}; stages/" in line, "what follows from other keys is named after them"


def test_epochs_that_end_before_the_steps_that_were_asked_for_are_named(base, prepared):
    def lines(**optimization):
        changes = {"seed": 8, "optimization": base["optimization"] | optimization}  # nothing is trained with this seed
        config = RunConfig.model_validate(base | changes)
        return list(unreached_in_words(plan_run(config, replace(prepared, strategies=resolve_strategies(config)))))

    assert lines() == lines(max_steps=1) == []
    told = lines(num_epochs=1, max_steps=5000)
    first = r"sftkey-tag stage 1/2 \(full\): has \d+ steps, because num_epochs=1 ends before max_steps=5,000"
    assert [bool(re.fullmatch(first, line)) for line in told] == [True, False], told


def test_what_a_guard_judges_by_is_named_by_the_keys_of_the_evaluation(base, prepared):
    before = plan_stages(RunConfig.model_validate(base), prepared)["sftkey-tag"][1]
    earlier = before.directory.path.with_name(before.directory.path.name.rpartition("-")[0] + "-0123")
    inputs = json.loads(json.dumps(before.inputs))
    inputs["guard"]["assessment"]["settings"]["alpha"] = 0.1 + 0.2
    earlier.mkdir(parents=True)
    (earlier / "stage.json").write_text(json.dumps({"inputs": inputs}))
    (line,) = changes_in_words(prepared.run, before, [before])
    assert re.search(
        r"this has changed since it was last trained: evaluation\.alpha \(0\.3 before, 0\.\d now\);", line
    ), line
