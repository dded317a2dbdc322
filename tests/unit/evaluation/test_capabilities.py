"""The capability check beside plain PyTorch: what is measured, and what of it is compared."""

import importlib.util
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftkey_dist.config.evaluation import CapabilitiesConfig
from sftkey_dist.errors import ConfigError, DataError
from sftkey_dist.evaluation.capabilities.changes import capability_changes
from sftkey_dist.evaluation.capabilities.harness import Harness, require_tasks
from sftkey_dist.run_dir.artifacts.capabilities import CapabilityMetric, CapabilityResult
from tests.capability_tasks import NUM_DOCUMENTS, documents, write_tasks

pytestmark = pytest.mark.slow  # loading the harness takes seconds
needs_harness = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs lm-eval")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("capabilities") / "tasks")


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory) -> dict[str, Path]:
    """Two models with opinions: with their first weights all texts of a length are about as likely."""
    folders = {}
    for name, seed in (("base", 1), ("trained", 2)):
        folders[name] = tmp_path_factory.mktemp("models") / name
        shutil.copytree(tiny_model, folders[name])
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.data += 0.6 * torch.randn_like(parameter)
        model.save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="module")
def harnesses(models, tasks) -> dict[str, Harness]:
    module = pytest.importorskip("lm_eval.evaluator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "add_env_info", lambda results: None)  # lists all packages, which takes two seconds
        settings = CapabilitiesConfig(tasks=("memo_choice",), task_dir=tasks, batch_size=5)
        yield {name: Harness(folder, settings, trust_remote_code=False) for name, folder in models.items()}


@pytest.fixture(scope="module")
def results(harnesses) -> dict[str, CapabilityResult]:
    return {name: harness.measure("memo_choice", f"digest of {name}") for name, harness in harnesses.items()}


def right_choices(model_dir: Path) -> tuple[list[float], list[float]]:
    """For each document: whether the likeliest choice is the right one, and the likeliest per character."""
    model, tokenizer = (kind.from_pretrained(model_dir) for kind in (AutoModelForCausalLM, AutoTokenizer))
    likeliest, per_character = [], []
    for document in documents():
        context = f"{document['prompt']}\nReasoning:"
        start = len(tokenizer(context, add_special_tokens=False)["input_ids"])
        log_likelihoods = []
        for choice in document["choices"]:
            ids = torch.tensor(tokenizer(f"{context} {choice}", add_special_tokens=False)["input_ids"])
            with torch.no_grad():
                log_probabilities = model(input_ids=ids[None]).logits[0, :-1].double().log_softmax(-1)
            log_likelihoods.append(log_probabilities[torch.arange(len(ids) - 1), ids[1:]][start - 1 :].sum().item())
        lengths = [len(choice) for choice in document["choices"]]
        likeliest.append(float(np.argmax(log_likelihoods) == document["label"]))
        per_character.append(float(np.argmax(np.divide(log_likelihoods, lengths)) == document["label"]))
    return likeliest, per_character


@needs_harness
@pytest.mark.parametrize("name", ["base", "trained"])
def test_every_document_gets_what_plain_pytorch_makes_of_it(results, models, name):
    found = results[name]
    expected = dict(zip(("acc", "acc_norm"), right_choices(models[name]), strict=True))
    assert [metric.name for metric in found.metrics] == ["acc", "acc_norm"]
    for metric in found.metrics:
        values = np.array(list(metric.values.values()))
        assert values.tolist() == expected[metric.name]
        assert 0 < values.mean() < 1, "a test that a constant would pass says nothing"
        assert metric.mean == values.mean()
        assert metric.standard_error == pytest.approx(stats.sem(values))
        assert metric.higher_is_better
    assert (found.num_documents, found.task_versions) == (NUM_DOCUMENTS, {"memo_choice": "1.5"})


@needs_harness
def test_models_are_paired_by_document(results):
    changes = capability_changes([results["base"]], {"own": [results["trained"]], "other": []})
    assert changes["other"] == ()
    for change, before, after in zip(changes["own"], results["base"].metrics, results["trained"].metrics, strict=True):
        pairs = [(before.values[document], after.values[document]) for document in before.values]
        gained, lost = pairs.count((0.0, 1.0)), pairs.count((1.0, 0.0))
        assert gained + lost > 2
        assert (change.n, change.difference) == (NUM_DOCUMENTS, pytest.approx((gained - lost) / NUM_DOCUMENTS))
        rarer = sum(math.comb(gained + lost, k) for k in range(min(gained, lost) + 1)) / 2 ** (gained + lost)
        assert change.p_value == pytest.approx(min(1.0, 2 * rarer))
        assert change.difference_interval[0] < change.difference < change.difference_interval[1]
    low, high = sorted(change.p_value or 0.0 for change in changes["own"])
    adjusted = sorted(change.adjusted_p_value or 0.0 for change in changes["own"])
    assert adjusted == [min(1.0, 2 * low), max(min(1.0, 2 * low), high)], "Holm"


@needs_harness
def test_groups_are_joined_and_readings_and_metrics_that_are_no_means_are_told_apart(harnesses, results):
    group = harnesses["base"].measure("memo_group", "d")
    (alone, *_), (joined, *_) = results["base"].metrics, group.metrics
    assert (joined.name, joined.mean, len(joined.values)) == ("acc", alone.mean, 2 * NUM_DOCUMENTS)
    assert group.task_versions == {"memo_choice": "1.5", "memo_again": "1.5"}
    (bits,) = harnesses["base"].measure("memo_perplexity", "d").metrics
    assert bits.mean > 0
    assert (bits.values, bits.higher_is_better, math.isnan(bits.standard_error)) == ({}, False, True)
    acc, _, *of_each = harnesses["base"].measure("memo_unjoined", "d").metrics
    assert [metric.name for metric in of_each] == ["memo_perplexity/bits_per_byte", "memo_bytes/bits_per_byte"]
    assert (acc.mean, [metric.mean for metric in of_each]) == (alone.mean, [bits.mean] * 2)
    words = harnesses["base"].measure("memo_words", "d")
    assert [metric.name for metric in words.metrics] == ["exact_match/strict", "exact_match/loose"]
    assert [len(metric.values) for metric in words.metrics] == [NUM_DOCUMENTS] * 2


@needs_harness
def test_a_task_that_fails_is_one_line(harnesses, monkeypatch):
    with pytest.raises(DataError, match=r"^the task failed \(UndefinedError: 'nothing_there' is undefined\)$"):
        harnesses["base"].measure("memo_broken", "d")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"'someone/memos' on the Hub.*HF_DATASETS_OFFLINE=1.*task_dir") as raised:
        harnesses["base"].measure("memo_hub", "d")
    assert "\n" not in str(raised.value)
    monkeypatch.setattr("lm_eval.simple_evaluate", lambda *args, **more: {"samples": {"t": [{"doc_id": 1}]}})
    with pytest.raises(DataError, match=r"^the task failed \(KeyError: 'doc_hash'\)$"):
        harnesses["base"].measure("memo_choice", "d")


@needs_harness
def test_names_are_checked_before_anything_is_loaded(tasks, tmp_path, monkeypatch):
    module = pytest.importorskip("lm_eval.tasks.manager")

    # A few of the harness's own tasks; indexing all of them takes several seconds.
    shutil.copytree(Path(module.__file__).parent / "arc", tmp_path / "arc")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "manager.py"))
    require_tasks(CapabilitiesConfig(tasks=("memo_choice", "memo_words"), task_dir=tasks))
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        require_tasks(CapabilitiesConfig(tasks=("memo_choice",), task_dir="nowhere"))
    with pytest.raises(ConfigError, match=r"no task memo_chioce, and no valid file .*; did you mean memo_choice\?"):
        require_tasks(CapabilitiesConfig(tasks=("arc_easy", "memo_group", "memo_chioce"), task_dir=tasks))
    with pytest.raises(ConfigError, match=r"has no task arc_esay; did you mean arc_easy\?"):
        require_tasks(CapabilitiesConfig(tasks=("arc_esay",)))


@needs_harness
@pytest.mark.parametrize("wrong", ["task: 2024", "group: null\ntask: [memo_choice]"])
def test_a_file_that_the_harness_cannot_read_is_named_with_its_folder(tasks, tmp_path, wrong):
    shutil.copytree(tasks, tmp_path / "tasks")
    (tmp_path / "tasks" / "wrong.yaml").write_text(wrong)
    with pytest.raises(ConfigError, match=r"task_dir: .* cannot read the tasks of .*tasks \(TypeError: .* are text$"):
        require_tasks(CapabilitiesConfig(tasks=("memo_choice",), task_dir=tmp_path / "tasks"))


def test_a_missing_harness_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'sftkey_dist\[capabilities\]'"):
        require_tasks(CapabilitiesConfig(tasks=("arc_easy",)))


def result_of(values: list[float], name: str = "f1", mean: float | None = None, **more) -> CapabilityResult:
    documents = {f"d {number}": value for number, value in enumerate(values)}
    metric = CapabilityMetric(name, np.mean(values) if mean is None else mean, 0.1, True, documents)
    return CapabilityResult("t", "digest", "0", {}, len(values), (metric,))


def test_values_between_right_and_wrong_get_the_paired_t_test():
    before, after = [0.2, 0.5, 0.9, 0.4, 0.7], [0.1, 0.3, 0.85, 0.45, 0.3]
    (change,) = capability_changes([result_of(before)], {"own": [result_of([*after, 1.0])]})["own"]
    differences = np.subtract(after, before)
    error = differences.std(ddof=1) / math.sqrt(5)
    assert (change.n, change.difference) == (5, pytest.approx(differences.mean())), "the sixth document is not shared"
    half = stats.t.ppf(0.975, 4) * error
    assert change.difference_interval == pytest.approx((differences.mean() - half, differences.mean() + half))
    assert change.p_value == pytest.approx(2 * stats.t.cdf(-abs(differences.mean() / error), 4))


def test_without_values_of_documents_there_is_a_difference_and_no_test():
    (change,) = capability_changes([result_of([], mean=9.0)], {"own": [result_of([], mean=9.5)]})["own"]
    assert (change.n, change.difference, change.p_value, change.adjusted_p_value) == (0, 0.5, None, None)
    assert not change.is_loss


@pytest.mark.parametrize(("better", "is_loss"), [(True, True), (None, True), (False, False)])
def test_what_a_loss_is_depends_on_the_metric(better, is_loss):
    before, after = (
        CapabilityResult("t", "d", "0", {}, 12, (CapabilityMetric("m", value, 0.0, better, of),))
        for value, of in ((1.0, {str(n): 1.0 for n in range(12)}), (0.0, {str(n): 0.0 for n in range(12)}))
    )
    (change,) = capability_changes([before], {"own": [after]})["own"]
    assert change.is_significant
    assert change.is_loss == is_loss
