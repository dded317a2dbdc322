"""Models on a hub: what is uploaded is what was evaluated, and others load it from there."""

import json
import shutil

import huggingface_hub
import peft
import pytest
import torch
import yaml
from huggingface_hub import constants
from transformers import AutoModelForCausalLM

from sftkey_dist.config.model import ModelConfig
from sftkey_dist.errors import ConfigError, DataError, ModelError
from sftkey_dist.models.load import locate_model
from sftkey_dist.pipeline.finished import note_model
from sftkey_dist.pipeline.push import push
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.artifacts.training import SUMMARY
from tests.finished_run import write_run
from tests.hub_server import TOKEN, hub_server
from tests.records import stage_summary


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def run(tmp_path, tiny_model):
    """A run whose second stage has left a model."""
    folder = write_run(tmp_path / "run", {"sft-tag": 9, "sftkey-tag": 15})
    for name in ("full-1", "key-2"):
        stage = StageDir(folder / "stages" / name)
        shutil.copytree(tiny_model, stage.model)
        SUMMARY.write(stage.summary, stage_summary(model_files=note_model(stage)))
    return folder


def test_a_model_is_uploaded_with_its_card_and_is_the_same_from_the_hub(hub, run, tiny_model):
    assert push(run, "sftkey-tag", "lab/memos", is_private=True) == f"{hub.url}/lab/memos"
    assert hub.is_private == {"lab/memos": True}
    assert hub.commits == ["Upload sftkey-tag of run run"]
    card = hub.files("lab/memos")["README.md"].decode()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["library_name"], front["base_model"]) == ("transformers", "Qwen/Qwen2.5-7B")
    assert 'folder = "lab/memos"' in card
    assert "accuracy 0.750" in card
    loaded = locate_model(ModelConfig(path="lab/memos"))
    for file in set(tiny_model.iterdir()) - {tiny_model / "README.md"}:
        assert (loaded / file.name).read_bytes() == file.read_bytes()


def test_no_file_names_a_folder_of_this_machine(hub, run, tiny_model, tmp_path):
    config = run / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model": {"path": str(tiny_model)}}))
    push(run, "sft-tag", "lab/memos")
    files = hub.files("lab/memos")
    for folder in (tmp_path, tiny_model.parent):
        assert not [name for name, content in files.items() if str(folder).encode() in content]
    assert b"Fine-tuned from a model of a local folder" in files["README.md"]


def test_what_the_hub_has_is_not_sent_again(hub, run):
    push(run, "sft-tag", "lab/memos")
    sent = hub.uploads
    push(run, "sft-tag", "lab/memos")
    assert hub.uploads == sent > 0


def test_an_adapter_names_its_base_as_others_find_it(hub, run, tiny_model, tmp_path):
    revision = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "hub/models--lab--base/snapshots" / revision
    shutil.copytree(tiny_model, snapshot)
    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(snapshot), peft.LoraConfig(r=2, target_modules=["q_proj"])
    )
    stage = StageDir(run / "stages/full-1")
    adapted.save_pretrained(stage.adapter)
    push(run, "sft-tag", "lab/adapter", adapter_only=True)
    files = hub.files("lab/adapter")
    config = json.loads(files["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("lab/base", revision)
    assert "tokenizer.json" in files
    assert "model.safetensors" not in files
    assert not any(str(tmp_path).encode() in content for content in files.values())
    assert yaml.safe_load(files["README.md"].decode().split("---")[1])["library_name"] == "peft"
    merged = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(snapshot), huggingface_hub.snapshot_download("lab/adapter")
    )
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(weight, adapted.state_dict()[name])

    adapted.peft_config["default"].base_model_name_or_path = str(tiny_model)
    adapted.save_pretrained(stage.adapter)
    with pytest.raises(ConfigError, match="not on the hub; leave the option out"):
        push(run, "sft-tag", "lab/adapter", adapter_only=True)
    with pytest.raises(ConfigError, match="trained all weights"):
        push(run, "sftkey-tag", "lab/adapter", adapter_only=True)


def test_a_mistake_is_named_before_anything_is_sent(hub, run):
    with pytest.raises(ConfigError, match="did you mean sftkey-tag"):
        push(run, "sftkey", "lab/memos")
    with pytest.raises(ConfigError, match="REPO lab/me/mos"):
        push(run, "sft-tag", "lab/me/mos")
    (run / "stages/full-1/model/model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="the stage wrote"):
        push(run, "sft-tag", "lab/memos")
    assert not hub.repositories


def test_a_hub_that_refuses_or_is_away_is_one_line_and_what_was_sent_stays(hub, run, monkeypatch):
    hub.full = True
    with pytest.raises(ModelError, match=r"cannot upload to lab/memos: .*run the same command again"):
        push(run, "sft-tag", "lab/memos")
    hub.full = False
    push(run, "sft-tag", "lab/memos")
    monkeypatch.setenv("HF_TOKEN", "hf_a_wrong_one")
    with pytest.raises(ModelError, match="set HF_TOKEN") as told:
        push(run, "sft-tag", "lab/others")
    assert "hf_a_wrong_one" not in str(told.value)
    monkeypatch.setattr(constants, "ENDPOINT", "http://me:hunter2@127.0.0.1:1")
    with pytest.raises(ModelError, match=r"http://\*\*\*@127\.0\.0\.1:1: cannot upload to") as told:
        push(run, "sft-tag", "lab/memos")
    assert "hunter2" not in str(told.value)
