import json
import os
import re
from pathlib import Path

import pytest
import yaml

from sftkey_dist.config import is_study, is_tuning, load_config
from sftkey_dist.config.run import RunConfig
from sftkey_dist.config.strategy import KeyStageConfig
from sftkey_dist.contract import Form
from sftkey_dist.errors import ConfigError
from sftkey_dist.strategy import resolve_strategies

FOLDER = Path(__file__).parents[3] / "configs"
GSM8K = FOLDER / "gsm8k.yaml"
MODELS = sorted((FOLDER / "models").glob("*.yaml"))
OF_MANY_RUNS = [file for file in FOLDER.glob("*.yaml") if is_study([file]) or is_tuning([file])]
ALONE = sorted({*FOLDER.glob("*.yaml")} - {*OF_MANY_RUNS, GSM8K})
CONFIGS = [*([file] for file in ALONE), *([GSM8K, model] for model in MODELS)]
MINIMAL = """
run_dir: runs/x
model: {path: ./model}
data:
  train: {adapter: gsm8k, path: train.jsonl}
  test: {adapter: gsm8k, path: test.jsonl}
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    file = tmp_path / "minimal.yaml"
    file.write_text(MINIMAL)
    return file


@pytest.mark.parametrize("files", CONFIGS, ids=lambda files: files[-1].stem)
def test_every_shipped_configuration_loads(files):
    assert load_config(files).run_dir


def test_shipped_models_share_their_data_and_nothing_that_a_run_writes():
    configs = [load_config([GSM8K, model]) for model in MODELS]
    assert len(configs) == 8
    assert {source.path for config in configs for source in (*config.data.train, *config.data.test)} == {"openai/gsm8k"}
    for values in ([str(config.run_dir) for config in configs], [config.model.path for config in configs]):
        assert len(set(values)) == len(configs)


def test_a_base_without_a_model_is_refused():
    with pytest.raises(ConfigError, match=r"gsm8k\.yaml: run_dir: required .*; model: required"):
        load_config([GSM8K])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.stem)
def test_key_stages_of_shipped_models_take_the_default_learning_rate_ratio(model):
    config = load_config([GSM8K, model])
    assert config.key_stage.learning_rate_ratio == KeyStageConfig().learning_rate_ratio
    (*_, key) = next(s for s in resolve_strategies(config) if s.name == "sftkey-tag").stages
    assert key.optimization.learning_rate == pytest.approx(0.05 * config.optimization.learning_rate)
    assert key.optimization.num_epochs == 1


EXAMPLES = {
    "paper": {"reasoning": "48 / 2 = 24", "answer": "72"},
    "credit_memo": {
        "analysis": "Steady income.",
        "risk_grade": "B",
        "approved_amount": "25000",
        "decision": "approve",
    },
    "finance_coding": {"explanation": "Paper for the printer.", "account_code": "6100-20"},
    "legal_triage": {"issues": "A late claim.", "citations": '["§ 5"]', "risk_category": "high"},
    "sales_action": {"summary": "They asked for a price.", "next_action": "quote", "due": "2026-12-01"},
    "support_case": {"assessment": "It arrived broken.", "reply": "We are sorry.", "action": "refund"},
    "thinking": {"reasoning": "48 / 2 = 24", "answer": "72"},
    "tools": {"reasoning": "Look it up.", "tool_call": '{"name": "price_of", "arguments": {"thing": "bike"}}'},
}


@pytest.mark.parametrize("file", sorted((FOLDER / "contracts").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_contract_can_be_merged_and_written_and_read_back(minimal, file):
    contract = load_config([minimal, file]).contract
    values = EXAMPLES[file.stem]
    assert set(values) <= {segment.name for segment in contract.segments}
    for form in Form:
        text = "".join(piece.text for piece in contract.render(values, form))
        parsed = contract.parse(text, form)
        assert (dict(parsed.values), parsed.violation) == (values, None)
    assert contract.key_segments


def test_later_files_and_overrides_win(minimal, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("seed: 3\noptimization: {learning_rate: 1e-4, num_epochs: 2}\n")
    config = load_config([minimal, overlay], ["optimization.learning_rate=3e-5", "data.train.limit=7"])
    assert config.seed == 3
    assert config.optimization.num_epochs == 2
    assert config.optimization.learning_rate == 3e-5
    assert config.data.train[0].limit == 7
    assert config.data.train[0].path == "train.jsonl"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimization.learning_rat=1", "optimization.learning_rat: unknown key"),
        ("optimization.learning_rate=fast", "optimization.learning_rate"),
        ("data.max_length_tokens=9000", "training.micro_batch_tokens=4096"),
        ("strategies=[sft,sft]", "each name must occur once"),
        ("model.embedded={}", "exactly one of model.path and model.embedded"),
        (
            "model={path: null, embedded: {hidden_size: 100}}",
            "heads of 25 cannot be rotated in pairs; set hidden_size=96 or",
        ),
        ("prompt.plain=hello", "must contain {prompt} exactly once"),
        ("model.attention=flash_attention_2", "cluster.gpus_per_worker=1"),
        ("training.zero.secondary_partition_ranks=3", "must divide cluster.num_workers=2"),
        ("training.sequence_parallel_ranks=3", "training.sequence_parallel_ranks=3 must divide cluster.num_workers=2"),
        ("no_equals_sign", "section.key=value"),
        ("tracking.uri=http://me:hunter2@mlflow:5000", "must not contain credentials"),
        ("tracking.uri=https://hunter2@mlflow", "must not contain credentials"),
        ("tracking.uri=postgresql://db/mlflow?user=me&password=hunter2", "must not contain credentials"),
        ("optimization.learning_rate=.inf", "optimization.learning_rate"),
        ("optimization.betas=[1.5,0.9]", "optimization.betas.0"),
        ("strategies=[{name: x, stages: [{name: y, weights: {answer: .nan}}]}]", "finite number"),
        ("data.test.path=train.jsonl", "data.test is the training data"),
        ("data.train.adapter=decision_memos", "generates its rows"),
        ("optimization.max_steps=1:30", "optimization.max_steps: expected a whole number, found '1:30'"),
        ("cluster.environment={A: true}", 'true is read as a truth value, not as text; put it in quotes: "true"'),
        ("contract.segments=[{name: a, key: true, check: {one_of: [0, 1]}}]", 'put it in quotes: "0"'),
        ("evaluation.answer_check={labels: [0, 1.5]}", 'put it in quotes: "1.5"'),
        ("training.lora={target_modules: [[q_proj]]}", "training.lora.target_modules.0: expected a text, found a list"),
    ],
)
def test_mistakes_are_one_line_that_names_the_key(minimal, override, message):
    with pytest.raises(ConfigError) as error:
        load_config([minimal], [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.attention=sdpa", "training.sequence_parallel_ranks needs model.attention=packed or packed_sdpa"),
        ("key_stage.stop_gradient_prefix=true", "stop_gradient_prefix and training.sequence_parallel_ranks cannot be"),
    ],
)
def test_ranks_that_share_rows_need_attention_to_whole_rows(minimal, override, message):
    with pytest.raises(ConfigError) as error:
        load_config([minimal], ["training.sequence_parallel_ranks=2", override])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "'a' appears twice (line 2)"),
        ("a: &x [1]\nb: *x\n", "aliases and anchors are not allowed (line 1)"),
        ("a: !!python/object/apply:os.system [echo]\n", "not valid YAML"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "expected keys and values"),
        ("a: {{b}}\n", "not valid YAML"),
        ("a: " + "[" * 9000, "more than 50 levels"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path, text, message):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config([file])
    assert str(file) in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="a folder; give the configuration file"):
        load_config([tmp_path])
    for name in ("nowhere.yaml", "loop", "dangling", "fifo"):
        with pytest.raises(ConfigError, match="no such configuration file"):
            load_config([tmp_path / name])
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config([tmp_path / ("x" * 300)])


def test_labels_that_yaml_1_1_would_not_take_for_text(minimal, tmp_path):
    overlay = tmp_path / "labels.yaml"
    overlay.write_text(
        "contract: {segments: [{name: a, key: true, check: {one_of: [yes, no, 010, 2026-01-31, 1:30]}}]}"
    )
    (segment,) = load_config([minimal, overlay]).contract.segments
    assert segment.check.one_of == ("yes", "no", "010", "2026-01-31", "1:30")


def test_a_key_that_python_reserves_is_written_and_suggested_as_it_is(minimal):
    config = load_config([minimal], ["key_stage.data.from=previous", "key_stage.data.samples=2"])
    assert config.key_stage.model_dump()["data"]["from"] == "previous"
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
    with pytest.raises(
        ConfigError, match=r"data\.from: required key is missing; .*data\.form: .*; did you mean from\?"
    ):
        load_config([minimal], ["key_stage.data.form=previous"])


def test_every_key_has_a_meaning():
    undocumented = []

    def visit(section, prefix):
        for name, field in section.model_fields.items():
            if not field.description:
                undocumented.append(f"{prefix}{name}")
            if hasattr(field.annotation, "model_fields"):
                visit(field.annotation, f"{prefix}{name}.")

    visit(RunConfig, "")
    assert undocumented == []


@pytest.mark.parametrize("files", CONFIGS, ids=lambda files: files[-1].stem)
def test_a_resolved_configuration_is_a_configuration(files):
    """`config.json` of a run directory can be run, and is read again when a run is synced."""
    config = load_config(files, ["key_stage.optimization.max_steps=null"])
    again = RunConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert again == config
    assert resolve_strategies(again) == resolve_strategies(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "evaluation.answer_check={labels: [0, approve]}",
            'evaluation.answer_check.labels.0: 0 is read as a number, not as text; put it in quotes: "0"',
        ),
        (
            "evaluation.answer_check=exat",
            "evaluation.answer_check: expected auto, exact, numeric, math, option, label, json or tool_call, or keys "
            "and values with regex, labels, json_fields or function, found 'exat'; did you mean exact?",
        ),
        (
            "strategies=[sftkeytag]",
            "strategies.0: expected sft, sft-tag, key-tag or sftkey-tag, or keys and values with name and stages, "
            "found 'sftkeytag'; did you mean sftkey-tag?",
        ),
        ("strategies=[{name: x, stages: []}]", "strategies.0.stages: expected at least 1 item, found 0"),
        ("evaluation.judge={judges: [{path: x, modell: m}]}", "evaluation.judge.judges.0.modell: unknown key"),
        (
            "evaluation.judge={judges: [{url: 'http://a:b@h', model: m}]}",
            "evaluation.judge.judges.0: url must not contain",
        ),
        ("data.train.limitt=1", "data.train.limitt: unknown key; did you mean limit?"),
    ],
)
def test_of_alternatives_the_nearest_is_meant(minimal, override, message):
    with pytest.raises(ConfigError) as error:
        load_config([minimal], [override])
    assert str(error.value).startswith(f"the command line: {message}")
    section = message.partition(".")[0]
    assert str(error.value).count(f"{section}.") == 1, "of one alternative"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.train.adapter=record",
            "data.train.adapter: expected .*messages or decision_memos, found 'record'; did you",
        ),
        ("contract.container=xml", "contract.container: expected tags, json or plain, found 'xml'$"),
        ("data.train.labels=[a]", "data.train.labels: expected keys and values, found a list$"),
        ("evaluation.endpoint=http://me:hunter2@x", "evaluation.endpoint: expected keys and values, found a text$"),
        ("model=3", "model: expected keys and values, found a number$"),
        ("strategies=sft", r"strategies: expected a list, such as \[a, b\], found a text$"),
        (
            "contract.segments.1.check.one_of=[a]",
            "contract.segments: an item of a list cannot be changed by itself; give",
        ),
        (
            "data.train.0.columns={a: b}",
            r"data.train.0: an item .* list, or data\.train\.columns without a number if there",
        ),
        ("data.train=[]", "data.train: expected at least 1 item, found 0$"),
        ("optimization.betas=[0.9]", "optimization.betas.1: the list is too short$"),
        ("optimization.betas=[0.9,0.9,0.9]", "optimization.betas: expected at most 2 items, found 3$"),
        ("tracking.enabled=maybe", "tracking.enabled: expected true or false, found 'maybe'$"),
        ("prompt.date=soon", "prompt.date: expected a date, such as 2026-01-31, found 'soon'$"),
        ("data.train.weight=heavy", "data.train.weight: expected a number, found 'heavy'$"),
        ("strategies=[{name: A b, stages: []}]", r"strategies.0.name: 'A b' does not have the form \^"),
    ],
)
def test_a_value_of_the_wrong_kind_is_described_without_words_of_python(minimal, override, message):
    with pytest.raises(ConfigError) as error:
        load_config([minimal], [override])
    assert re.match(f"the command line: {message}", str(error.value).partition("; strategies.0.stages")[0])
    assert not re.search("dictionary|tuple|instance|input|string|hunter2", str(error.value), re.IGNORECASE)


def test_the_number_of_an_item_is_the_only_problem_where_a_list_is_changed_by_it(minimal, tmp_path):
    more = tmp_path / "two.yaml"
    more.write_text("data: {train: [{adapter: records, path: a.csv}, {adapter: records, path: b.csv}]}\n")
    with pytest.raises(ConfigError) as error:
        load_config([minimal, more], ["data.train.0.path=c.csv"])
    assert str(error.value).startswith("the command line: data.train.0: an item of a list cannot be changed by itself")
    assert "adapter" not in str(error.value)


def test_every_problem_is_named_with_the_place_that_its_key_comes_from(minimal, tmp_path):
    more = tmp_path / "more.yaml"
    more.write_text("optimization: {learning_rate: fast, num_epoch: 3}\n")
    with pytest.raises(ConfigError) as error:
        load_config([minimal, more], ["optimization.max_step=1", "tracking.enabled=5"])
    of_file, of_command_line = (
        "optimization.num_epoch: unknown key; did you mean num_epochs?",
        "optimization.max_step: unknown key; did you mean max_steps?; tracking.enabled: ",
    )
    assert str(error.value).startswith(f"{more}: optimization.learning_rate: expected a number, found 'fast'")
    assert f"{of_file}; the command line: {of_command_line}" in str(error.value)
    minimal.write_text(minimal.read_text() + "\nqwertyuiop: 1\n")
    with pytest.raises(ConfigError) as error:
        load_config([minimal])
    assert str(error.value) == f"{minimal}: qwertyuiop: unknown key; remove it or check its spelling"


@pytest.mark.parametrize(
    "other",
    ["lora={}", "zero.reduce_precision=bfloat16", "zero={offload: nvme, nvme_path: /nvme}"],
)
def test_muon_is_refused_beside_what_it_was_not_made_for(minimal, other):
    muon = "optimization.muon={learning_rate_ratio: 20}"
    load_config([minimal], [muon])
    with pytest.raises(ConfigError, match=r"optimization\.muon and training\.[a-z_.=0-9]+ cannot be combined; remove"):
        load_config([minimal], [muon, f"training.{other}"])


def test_swapped_reasoning_needs_a_loaded_model_and_reasoning(minimal):
    wanted = "evaluation.swapped_reasoning=5"
    assert load_config([minimal], [wanted]).evaluation.swapped_reasoning == 5
    server = ["evaluation.backend=endpoint", "evaluation.endpoint={url: 'http://127.0.0.1:1/v1', model: m}"]
    with pytest.raises(ConfigError, match="swapped_reasoning needs backend: transformers or vllm") as raised:
        load_config([minimal], [wanted, *server])
    assert "\n" not in str(raised.value)
    for segments in ("[{name: answer, key: true}, {name: reasoning}]", "[{name: answer, key: true}]"):
        with pytest.raises(ConfigError, match="no segment before its first key segment"):
            load_config([minimal], [wanted, f"contract.segments={segments}"])
    call = "{name: call, key: true, required: false, delimiter: 'Call: '}"
    optional = f"[{call}, {{name: why, delimiter: 'Why: '}}, {{name: answer, key: true}}]"
    load_config([minimal], [wanted, f"contract.segments={optional}"])


def test_a_key_below_a_list_does_not_replace_the_list(minimal):
    sources = "data.train=[{adapter: decision_memos, limit: 5}, {adapter: decision_memos, limit: 6}]"
    written = yaml.safe_load(minimal.read_text())
    written["data"]["train"] = [{"adapter": "decision_memos", "limit": 5}, {"adapter": "decision_memos", "limit": 6}]
    minimal.write_text(yaml.safe_dump(written))
    with pytest.raises(ConfigError, match=r"line: data\.train\.limit: data\.train is a list of 2 items; give the"):
        load_config([minimal], ["data.train.limit=7"])
    one = "data.train={adapter: decision_memos, limit: 5}"
    assert load_config([minimal], [one, "data.train.limit=7"]).data.train[0].limit == 7
    assert len(load_config([minimal], [sources]).data.train) == 2
