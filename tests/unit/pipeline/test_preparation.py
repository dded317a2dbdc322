"""What a preparation finds in the model and in the data before anything is trained."""

import datetime
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from sftkey_dist.config.run import RunConfig
from sftkey_dist.data.encoding.prompt import PromptEncoder
from sftkey_dist.errors import ConfigError, DataError, ModelError
from sftkey_dist.models.embedded import make_embedded_model
from sftkey_dist.models.load import load_tokenizer
from sftkey_dist.pipeline.evaluation_settings import settings_for_tests
from sftkey_dist.pipeline.prepare import prepare
from sftkey_dist.pipeline.stages import plan_stages

TODAY = "Today Date: {{ strftime_now('%d %b %Y') }}\n"


@pytest.fixture
def settings(run_config):
    return run_config.model_dump(mode="json") | {"strategies": ["sft-tag"]}


@pytest.fixture
def dated_model(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "dated")
    template = folder / "chat_template.jinja"
    template.write_text(TODAY + template.read_text())
    return folder


def on(day, monkeypatch):
    fixed = type("date", (datetime.date,), {"today": classmethod(lambda cls: day)})
    monkeypatch.setattr(datetime, "date", fixed)


def first_prompt(store):
    ids, segments = store.example(0)
    return ids[segments == 0].tolist()


def prompt_of(settings):
    """Prepare; returns the first training prompt as it is stored, the same as generation writes it, and all digests."""
    config = RunConfig.model_validate(settings)
    done = prepare(config)
    (store,) = done.stores.values()
    tokenizer = load_tokenizer(done.model_dir)
    generation = PromptEncoder(tokenizer, settings_for_tests(config, done.strategies[0]).prompt)
    (written,) = generation.ids([generation.text(done.test[0])])
    (stage,) = plan_stages(config, done)["sft-tag"]
    return tokenizer.decode(first_prompt(store)), tokenizer.decode(written), (store.digest, stage.digest)


def test_a_run_prints_one_date_in_training_and_generation_from_the_day_it_was_first_prepared(
    settings, dated_model, monkeypatch, tmp_path
):
    dated = settings | {"model": {"path": str(dated_model)}}
    on(datetime.date(2025, 1, 31), monkeypatch)
    trained, generated, digests = prompt_of(dated)
    assert trained.startswith("Today Date: 31 Jan 2025\n")
    assert generated.startswith("Today Date: 31 Jan 2025\n")
    on(datetime.date(2025, 2, 1), monkeypatch)
    assert prompt_of(dated) == (trained, generated, digests)  # resumed on the next day
    written = json.loads((tmp_path / "runs" / "tiny" / "config.json").read_text())
    assert written["prompt"]["date"] == "2025-01-31"
    assert prompt_of(written | {"run_dir": str(tmp_path / "runs" / "copy")}) == (trained, generated, digests)
    later, _, other = prompt_of(dated | {"run_dir": str(tmp_path / "runs" / "later")})
    assert later.startswith("Today Date: 01 Feb 2025\n")
    assert not set(digests) & set(other)
    set_date = dated | {"run_dir": str(tmp_path / "runs" / "set"), "prompt": {"date": "2025-01-31"}}
    assert prompt_of(set_date) == (trained, generated, digests)
    assert not (tmp_path / "runs" / "set" / "first_prepared").exists()


def test_a_runs_template_and_arguments_are_in_its_model_folder_and_in_every_digest(settings, tiny_model, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text(
        (tiny_model / "chat_template.jinja").read_text() + "{% if brief %}{{ 'In one word: ' }}{% endif %}"
    )
    plain = prompt_of(settings | {"run_dir": str(tmp_path / "runs" / "plain")})
    chosen = settings | {"prompt": {"chat_template": str(template), "template_arguments": {"brief": True}}}
    trained, generated, digests = prompt_of(chosen | {"run_dir": str(tmp_path / "runs" / "a")})
    assert trained.endswith("In one word: ")
    assert generated.endswith("In one word: ")
    again = prompt_of(json.loads((tmp_path / "runs" / "a" / "config.json").read_text()))
    assert again == (trained, generated, digests)
    off = chosen | {"prompt": {"chat_template": str(template)}, "run_dir": str(tmp_path / "runs" / "b")}
    _, _, other = prompt_of(off)
    assert not set(digests) & {*other, *plain[2]}
    assert other[1] != plain[2][1]
    (folder,) = {prepare(RunConfig.model_validate(chosen | {"run_dir": str(tmp_path / "runs" / "a")})).model_dir}
    served = load_tokenizer(folder)
    messages = [{"role": "user", "content": "q"}]
    assert served.apply_chat_template(messages, tokenize=False, add_generation_prompt=True).endswith("In one word: ")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"template_arguments": {"brief": True}}, "no variable 'brief'; it has none"),
        ({"chat_template": "missing.jinja"}, r"missing\.jinja cannot be read \(No such file"),
        ({"chat_template": "empty.jinja"}, "is empty"),
        ({"chat_template": "broken.jinja"}, "chat template"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_error(settings, tmp_path, monkeypatch, prompt, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jinja").write_text("\n")
    (tmp_path / "broken.jinja").write_text("{% if %}")
    with pytest.raises((ConfigError, ModelError), match=message):
        prepare(RunConfig.model_validate(settings | {"prompt": prompt}))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"template_arguments": {"messages": []}}, "'messages' is set whenever"),
        ({"template_arguments": {"eos_token": "x"}}, "'eos_token' is set whenever"),
        ({"template_arguments": {"a b": 1}}, "not the name of a variable"),
        ({"template": "plain", "template_arguments": {"a": 1}}, r"remove prompt\.template_arguments"),
        ({"template": "plain", "chat_template": "x.jinja"}, r"remove prompt\.chat_template"),
    ],
)
def test_arguments_that_no_template_takes_are_refused(settings, prompt, message):
    with pytest.raises(ValueError, match=message):
        RunConfig.model_validate(settings | {"prompt": prompt})


def test_a_template_without_a_date_makes_the_same_store_on_any_day(settings, monkeypatch, tmp_path):
    on(datetime.date(2025, 1, 31), monkeypatch)
    expected = prompt_of(settings)
    on(datetime.date(2025, 2, 1), monkeypatch)
    assert prompt_of(settings) == expected
    assert prompt_of(settings | {"prompt": {"date": "2024-01-01"}}) == expected
    assert not list((tmp_path / "runs" / "tiny").glob("base_model*"))


def test_a_model_with_fewer_embeddings_than_tokens_is_refused(settings, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "short")
    tensors = load_file(folder / "model.safetensors")
    short = {name: rows[:200].contiguous() if len(rows) > 300 else rows for name, rows in tensors.items()}
    save_file(short, folder / "model.safetensors", {"format": "pt"})
    shape = json.loads((folder / "config.json").read_text()) | {"vocab_size": 200}
    (folder / "config.json").write_text(json.dumps(shape))
    for contract in ({}, {"special_token_tags": True}):
        config = RunConfig.model_validate(settings | {"model": {"path": str(folder)}, "contract": contract})
        with pytest.raises(ModelError, match=r"short: the embeddings have 200 rows .*use the tokenizer that the model"):
            prepare(config)
    assert not (tmp_path / "runs" / "store").exists()


def test_adapters_do_not_go_with_new_tokens(settings):
    lora = {"contract": {"special_token_tags": True}, "training": settings["training"] | {"lora": {}}}
    with pytest.raises(ValueError, match=r"embeddings of the new tokens would not be trained; set training\.lora=null"):
        RunConfig.model_validate(settings | lora)


def test_the_overlap_covers_every_test_set_though_they_number_their_rows_alike(settings, tmp_path, capsys):
    rows = [{"one": f"q{i}", "two": f"z{i}", "reasoning": "r", "answer": "a"} for i in range(3)]
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"adapter": "records", "path": str(tmp_path / "train.jsonl"), "prompt": "one"}
    tests = [
        train | {"path": str(tmp_path / "test.jsonl"), "prompt": column, "name": column} for column in ("one", "two")
    ]
    done = prepare(RunConfig.model_validate(settings | {"data": settings["data"] | {"train": train, "test": tests}}))
    assert done.reports[0].overlap == tuple(f"one {tmp_path / 'test.jsonl'}:{line}" for line in (1, 2, 3))
    assert "3 test prompts are also trained on" in capsys.readouterr().out


@pytest.mark.parametrize("shard_rows", [2, 100])
def test_training_rows_of_a_test_set_are_dropped_and_counted_when_asked_for(settings, tmp_path, capsys, shard_rows):
    rows = [{"prompt": f"q{i}", "reasoning": "r", "answer": "a"} for i in range(9)]
    tested = [{"prompt": "  Q3", "reasoning": "other", "answer": "b"}, rows[8], {**rows[0], "prompt": "new"}]
    for name, content in {"train": rows, "test": tested}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    data = settings["data"] | {"max_bad_row_share": 0, "shard_rows": shard_rows, "num_workers": 1}
    data |= {name: {"adapter": "records", "path": str(tmp_path / f"{name}.jsonl")} for name in ("train", "test")}
    kept, dropped = (
        prepare(RunConfig.model_validate(settings | {"data": data | {"drop_overlap": drop}})) for drop in (False, True)
    )
    assert len(kept.reports[0].overlap) == 2
    (store,), (report,) = dropped.stores.values(), dropped.reports
    assert store.path not in [other.path for other in kept.stores.values()]
    ids = [f"{tmp_path}/train.jsonl:{line}" for line in (1, 2, 3, 5, 6, 7, 8)]
    assert store.example_ids(range(len(store))) == ids
    assert (report.rows, report.kept, report.overlap) == (9, 7, ())
    assert [(item.reason, item.count) for item in report.dropped] == [("in_test", 2)]
    assert "7 of 9 rows kept, 2 dropped as in_test" in capsys.readouterr().out
    (tmp_path / "train.jsonl").write_text(json.dumps(rows[8]) + "\n")
    with pytest.raises(DataError, match=r"every row of .* is longer than .* or in a test set \(data\.drop_overlap\)"):
        prepare(RunConfig.model_validate(settings | {"data": data | {"drop_overlap": True}}))


def test_special_tokens_in_test_prompts_are_said_too(settings, tmp_path, capsys):
    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": "<|im_end|>", "reasoning": "r", "answer": "a"}) + "\n")
    test = {"adapter": "records", "path": str(tmp_path / "test.jsonl")}
    prepare(RunConfig.model_validate(settings | {"data": settings["data"] | {"test": test}}))
    assert "1 prompts of data.test contain '<|im_end|>'" in capsys.readouterr().out
    report = json.loads((tmp_path / "runs" / "tiny" / "data_report.json").read_text())
    assert report["test"]["special_tokens_in_prompts"] == {"<|im_end|>": 1}


def test_a_stricter_share_of_bad_rows_holds_for_a_run_that_is_prepared_again(settings, tmp_path):
    good = {"prompt": "p", "reasoning": "r", "answer": "a"}
    rows = [*[good | {"prompt": f"p{i}"} for i in range(5)], *[{"prompt": "p"}] * 5]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = settings["data"] | {"train": {"adapter": "records", "path": str(tmp_path / "train.jsonl")}}
    prepare(RunConfig.model_validate(settings | {"data": data | {"max_bad_row_share": 0.9}}))
    with pytest.raises(DataError, match=r"train\.jsonl:6: missing_field"):
        prepare(RunConfig.model_validate(settings | {"data": data | {"max_bad_row_share": 0}}))


def test_a_reference_that_its_check_cannot_read_is_refused_with_its_row(settings, tmp_path):
    rows = tmp_path / "test.jsonl"
    answers = ("42", "see the figure", "3 1/2 hours")
    rows.write_text("".join(json.dumps({"prompt": "How many?", "reasoning": "r", "answer": a}) + "\n" for a in answers))
    source = {"adapter": "records", "path": str(rows), "answer_check": "numeric", "name": "mine"}
    with pytest.raises(DataError, match=r"test\.jsonl:2.*unreadable_answer.*see the figure.*no number.*answer_check"):
        prepare(RunConfig.model_validate(settings | {"data": settings["data"] | {"test": [source]}}))
    allowed = settings["data"] | {"test": [source], "max_bad_row_share": 0.5}
    done = prepare(RunConfig.model_validate(settings | {"data": allowed}))
    assert [example.values["answer"] for example in done.test] == ["42", "3 1/2 hours"]
    assert "unreadable_answer" in (done.run.path / "data_report.json").read_text()


@pytest.mark.parametrize("content", ["precious", '{"model_type": "qwen3"}', "[1]"])
def test_a_folder_of_another_program_is_not_written_over(settings, tmp_path, content):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"run_dir=.*model: its config\.json is not that of a run"):
        prepare(RunConfig.model_validate(settings | {"run_dir": str(folder)}))
    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [("config.json", content)]


def test_no_folder_is_no_run_dir(settings):
    with pytest.raises(ValueError, match="is empty; give a path"):
        RunConfig.model_validate(settings | {"run_dir": " "})


def test_examples_that_are_all_held_out_are_refused(settings):
    config = RunConfig.model_validate(settings | {"validation": {"num_examples": 10_000}})
    with pytest.raises(
        ConfigError, match=r"validation\.num_examples=10000: all \d+ training examples would be held out"
    ):
        plan_stages(config, prepare(config))


def test_what_a_finished_run_was_made_with_outlives_a_look_at_it(settings):
    done = prepare(RunConfig.model_validate(settings))
    made_with = (done.run.config, done.run.environment, done.run.data_report)
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in made_with]
    done.run.strategies.write_text("{}")
    looked_at = settings | {"seed": 7, "data": settings["data"] | {"max_length_tokens": 500}}
    prepare(RunConfig.model_validate(looked_at))
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in made_with] == before
    done.run.strategies.unlink()
    prepare(RunConfig.model_validate(looked_at))
    assert json.loads(done.run.config.read_text())["seed"] == 7, "what was not trained is prepared anew"


EMBEDDED = {"embedded": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "vocab_size": 300}}


def test_a_failed_preparation_leaves_no_base_model_and_reads_columns_before_it_makes_one(
    settings, tmp_path, monkeypatch
):
    rows = [{"prompt": f"p{i}", "reasoning": "r", "answer": "a"} for i in range(50)]
    file = tmp_path / "train.jsonl"
    train = {"adapter": "records", "path": str(file)}
    data = settings["data"] | {"train": train, "max_bad_row_share": 0.1}
    made = []
    counted = "sftkey_dist.pipeline.base_model.make_embedded_model"
    monkeypatch.setattr(counted, lambda *args: (made.append(args[0]), make_embedded_model(*args)))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    misspelt = data | {"train": train | {"columns": {"reasoning": "reasonin"}}}
    with pytest.raises(DataError, match=r"train\.jsonl:1: missing_field: .* did you mean 'reasoning'\?"):
        prepare(RunConfig.model_validate(settings | {"model": EMBEDDED, "data": misspelt}))
    assert not made
    file.write_text("".join(json.dumps(row | {"answer": ""}) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"train\.jsonl:1: empty_answer"):  # only the encoder sees it
        prepare(RunConfig.model_validate(settings | {"model": EMBEDDED, "data": data}))
    assert len(made) == 1
    assert not list((tmp_path / "runs").rglob("base_model*"))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = prepare(RunConfig.model_validate(settings | {"model": EMBEDDED, "data": data}))
    with pytest.raises(DataError):
        prepare(RunConfig.model_validate(settings | {"model": EMBEDDED, "data": misspelt}))
    assert list(done.run.path.glob("base_model-*")) == [done.model_dir], "that of an earlier preparation is kept"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"labels": {"answer": {"ok": "aprove"}}}, "data.test.1.labels.answer: the label of 'ok' is not allowed"),
        (
            {"columns": {"anwser": "x"}},
            "data.test.1.columns: the contract has no segment 'anwser'; did you mean answer?",
        ),
        ({"prompt": "{{prompt"}, "data.test.1.prompt: '{{' before"),
    ],
)
def test_a_source_whose_keys_do_not_fit_the_contract_is_named_by_its_key(settings, keys, message):
    segments = [{"name": "reasoning"}, {"name": "answer", "key": True, "check": {"one_of": ["approve"]}}]
    source = {"adapter": "records", "path": "test.jsonl"}
    tests = [source | {"name": "a"}, source | {"name": "b"} | keys]
    of_run = {"contract": {"segments": segments}, "data": settings["data"] | {"test": tests}}
    with pytest.raises(ConfigError) as error:
        prepare(RunConfig.model_validate(settings | of_run))
    assert str(error.value).startswith(message)


def test_rows_that_repeat_or_contradict_others_are_named_and_all_of_them_are_in_a_file(settings, tmp_path, capsys):
    trained = [("q1", "a"), ("q2", "a"), ("Q1 ", "a"), ("q2", "b"), ("q3", ""), *((f"p{i}", "a") for i in range(20))]
    tested = [("t1", "a"), ("t1", "a"), ("t1", "b")]
    for name, rows in {"train": trained, "test": tested}.items():
        lines = [{"prompt": prompt, "reasoning": "r", "answer": answer} for prompt, answer in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sources = {name: {"adapter": "records", "path": str(tmp_path / f"{name}.jsonl")} for name in ("train", "test")}
    data = settings["data"] | sources | {"max_bad_row_share": 0.1}
    done = prepare(RunConfig.model_validate(settings | {"data": data}))
    train, test = (f"{tmp_path}/{name}.jsonl" for name in ("train", "test"))
    said = capsys.readouterr().out
    listed = "data_rows.jsonl lists all of them"
    for line in (
        f"1 rows of data.train repeat another one, prompt and response, for example {train}:3 and {train}:1; {listed}",
        f"1 prompts of data.train occur with several responses, for example {train}:4 and {train}:2; {listed}",
        f"1 rows of data.test repeat another one, prompt and response, for example {test}:2 and {test}:1; {listed}",
        f"1 prompts of data.test occur with several responses, for example {test}:3 and {test}:1; {listed}",
    ):
        assert f"warning: {line}" in said
    rows = [json.loads(line) for line in done.run.data_rows.read_text().splitlines()]
    assert [(row["set"], row["row"], row["reason"]) for row in rows] == [
        ("train (tagged)", f"{train}:5", "empty_answer"),
        ("train (tagged)", f"{train}:3", "repeats"),
        ("train (tagged)", f"{train}:4", "other_response"),
        ("test", f"{test}:2", "repeats"),
        ("test", f"{test}:3", "other_response"),
    ]
    assert rows[2]["detail"] == f"the prompt of {train}:2 with another response"
    report = json.loads(done.run.data_report.read_text())
    assert (report["test"]["duplicates"], report["test"]["conflicts"]) == (1, 1)
    prepare(RunConfig.model_validate(settings | {"data": data | {"drop_duplicates": True}}))
    rows = [json.loads(line) for line in done.run.data_rows.read_text().splitlines()]
    assert [row["reason"] for row in rows[:3]] == ["empty_answer", "duplicate", "other_response"]
    assert rows[1]["detail"] == f"it repeats {train}:1"
    assert [row["reason"] for row in rows[3:]] == ["repeats", "other_response"], "one's own test set stays"


@pytest.mark.parametrize("is_split", [False, True])
def test_a_test_row_whose_prompt_the_template_refuses_is_dropped_and_counted(settings, tmp_path, is_split):
    response = {"role": "assistant", "content": "<Thinking>r</Thinking><Answer>a</Answer>"}
    asked = [[{"role": "user", "content": f"q{i}"}] for i in range(30)]
    asked[:8] = [[{"role": "system", "content": "never"}, *turns] for turns in asked[:8]]
    rows = tmp_path / "chats.jsonl"
    rows.write_text("".join(json.dumps({"messages": [*turns, response]}) + "\n" for turns in asked))
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    template = tmp_path / "refusing.jinja"
    template.write_text(refusing + (Path(settings["model"]["path"]) / "chat_template.jinja").read_text())
    source = {"adapter": "messages", "path": str(rows)}
    split = {"split": {"test": 0.5}} if is_split else {"test": source}
    train = source if is_split else settings["data"]["train"]
    data = {"store_dir": settings["data"]["store_dir"], "train": train, "max_length_tokens": 512, **split}
    changed = settings | {"prompt": {"chat_template": str(template)}}
    with pytest.raises(DataError, match=r"chats\.jsonl:\d: prompt_refused: .*no system here.*max_bad_row_share"):
        prepare(RunConfig.model_validate(changed | {"data": data | {"max_bad_row_share": 0.0}}))
    done = prepare(RunConfig.model_validate(changed | {"data": data | {"max_bad_row_share": 0.4}}))
    assert {refusal.reason for refusal in done.test_refusals} == {"prompt_refused"}
    (store,) = done.stores.values()
    of_training = [refusal for refusal in store.refusals if refusal.reason == "prompt_refused"]
    assert len(done.test_refusals) + len(of_training) == 8, "each is counted once"
    assert bool(of_training) == is_split
