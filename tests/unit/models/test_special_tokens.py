"""A model folder that learns tags as single tokens: its embeddings grow right, tied or not, in one file or several."""

import copy
import json

import pytest
import torch
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

from sftkey_dist.contract import ResponseContract
from sftkey_dist.errors import ModelError
from sftkey_dist.models.load import load_tokenizer
from sftkey_dist.models.requirements import require_row_per_token
from sftkey_dist.models.shape import read_shape
from sftkey_dist.models.special_tokens import add_special_tokens, lacks_tokens

TAGS = ResponseContract(special_token_tags=True).special_tokens


@pytest.fixture(params=[(True, "1GB"), (False, "1GB"), (False, "60KB")], ids=["tied", "untied", "sharded"])
def source(request, tiny_model, tmp_path):
    tied, shard_size = request.param
    set_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model, tie_word_embeddings=tied))
    model.save_pretrained(tmp_path / "source", max_shard_size=shard_size)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "source")
    assert (tmp_path / "source" / "model.safetensors.index.json").is_file() == (shard_size == "60KB")
    return tmp_path / "source"


def test_each_tag_is_one_token_that_starts_as_the_mean_of_its_letters(source, tmp_path):
    target = tmp_path / "target"
    assert lacks_tokens(source, TAGS)
    add_special_tokens(source, target, TAGS)
    assert not lacks_tokens(target, TAGS)
    old_ids = load_tokenizer(source)(list(TAGS), add_special_tokens=False)["input_ids"]
    tokenizer = load_tokenizer(target)
    new_ids = tokenizer.convert_tokens_to_ids(list(TAGS))
    old, new = (AutoModelForCausalLM.from_pretrained(folder) for folder in (source, target))
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        before, after = (getattr(model, layer)().weight for model in (old, new))
        assert len(after) == new.config.vocab_size >= len(tokenizer)
        for token_id, part in zip(new_ids, old_ids, strict=True):
            assert torch.allclose(after[token_id], before[part].mean(dim=0))
        untouched = [i for i in range(len(before)) if i not in new_ids]
        assert torch.equal(after[untouched], before[untouched])
    assert torch.equal(old.model.layers[0].mlp.up_proj.weight, new.model.layers[0].mlp.up_proj.weight)
    text = "<Thinking>a<b></Thinking><Answer>yes</Answer>"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_the_source_is_not_changed(source, tmp_path):
    """A file that is shared through a link must not be written either: another inode, another time."""
    (source / "chat_template.jinja").write_text((source / "chat_template.jinja").read_text() + "{# mine #}\n")

    def state():
        return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in source.iterdir()}

    before = state()
    add_special_tokens(source, tmp_path / "target", TAGS)
    assert state() == before
    for name in ("chat_template.jinja", "config.json", "tokenizer.json"):
        assert not (tmp_path / "target" / name).samefile(source / name)


def test_a_model_with_fewer_rows_than_ordinary_tokens_is_refused(source, tmp_path):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": 200}))
    with pytest.raises(ModelError, match=r"source: the embeddings have 200 rows .* tokens beyond them, such as"):
        add_special_tokens(source, tmp_path / "target", TAGS)
    assert not (tmp_path / "target").exists()


def test_a_special_token_needs_a_row_where_it_occurs(tokenizer, tiny_model):
    """Models of text alone come with an image's token, which nothing looks up."""
    more = copy.deepcopy(tokenizer)
    more.add_tokens([AddedToken("<image>", special=True)])
    shape, token_id = read_shape(tiny_model), len(tokenizer)
    require_row_per_token(tiny_model, shape, more)
    with pytest.raises(ModelError, match=rf"'<image>' with id {token_id}; .*resize_token_embeddings\({token_id + 1}\)"):
        require_row_per_token(tiny_model, shape, more, {token_id})
    more.add_tokens(["ordinary"])
    with pytest.raises(ModelError, match="'ordinary'"):
        require_row_per_token(tiny_model, shape, more)


def test_a_folder_without_embeddings_is_named(source, tmp_path):
    for file in source.glob("*.safetensors*"):
        file.unlink()
    (source / "model.safetensors.index.json").write_text('{"weight_map": {"other": "model.safetensors"}}')
    with pytest.raises(ModelError, match=r"special_token_tags=false"):
        add_special_tokens(source, tmp_path / "target", TAGS)
    assert not (tmp_path / "target").exists()
