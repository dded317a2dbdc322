"""Files of weights are those that transformers writes, and each is made of its own weights alone."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers.core_model_loading import Chunk, WeightConverter

from sftkey_dist.errors import TrainingError
from sftkey_dist.training.weights.layout import Layout, lay_out

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 100,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MODELS = {
    "tied": lambda: transformers.Qwen2Config(**SMALL, tie_word_embeddings=True),
    "untied": lambda: transformers.Qwen2Config(**SMALL, tie_word_embeddings=False),
    "experts": lambda: transformers.Qwen3MoeConfig(**SMALL, **EXPERTS, head_dim=8),
    "mixtral": lambda: transformers.MixtralConfig(**SMALL, num_local_experts=4),
}
FILE_BYTES = 20_000


def model_of(name: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(MODELS[name]())


def fused_when_stored() -> transformers.PreTrainedModel:
    """Queries, keys and values are one tensor in its files."""
    model = model_of("untied")
    parts = [f"self_attn.{part}_proj.weight" for part in "qkv"]
    model._weight_conversions = [WeightConverter("self_attn.qkv_proj.weight", parts, [Chunk(dim=0)])]
    return model


def layout_of(model, max_file_bytes: int) -> Layout:
    return lay_out(model, dict(model.named_parameters()), {}, max_file_bytes)


def write(model, layout: Layout, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    values = dict(model.named_parameters())
    with torch.no_grad():
        for part in layout.parts:
            kept = [part.tensors_of(model, name, values[name]) for name in part.weights]
            part.write(folder, model, {name: value for some in kept for name, value in some.items()})
    layout.write_index(folder)
    return files_in(folder)


def files_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*safetensors*")}


def tensors_in(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


@pytest.mark.parametrize("name", ["tied", "untied"])
@pytest.mark.parametrize("max_file_bytes", [FILE_BYTES, 5000, 10**9])
def test_files_and_index_are_byte_for_byte_those_of_transformers(tmp_path, name, max_file_bytes):
    model = model_of(name)
    files = write(model, layout_of(model, max_file_bytes), tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs", max_shard_size=max_file_bytes)
    assert files == files_in(tmp_path / "theirs")
    (tmp_path / "plain").touch()
    modes = {file.stat().st_mode for file in [tmp_path / "plain", *(tmp_path / "ours").iterdir()]}
    assert len(modes) == 1, "as the umask gives, though safetensors writes for its owner alone"
    assert ("model.safetensors" in files) == (max_file_bytes == 10**9)


@pytest.mark.parametrize("name", ["experts", "mixtral"])
def test_stacked_experts_are_stored_one_by_one_and_a_file_needs_its_own_weights_alone(tmp_path, name):
    model = model_of(name)
    layout = layout_of(model, FILE_BYTES)
    write(model, layout, tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs")
    theirs, ours = tensors_in(tmp_path / "theirs"), tensors_in(tmp_path / "ours")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert sum(value.nbytes for value in ours.values()) == layout.total_bytes
    assert len(layout.parts) > 3
    for part in layout.parts:
        ((_, names),) = part.files.items()
        assert sum(ours[key].nbytes for key in names) <= FILE_BYTES
        assert len(part.weights) < len(list(model.named_parameters()))
    loaded, problems = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not problems["missing_keys"]
    assert layout_of(loaded, FILE_BYTES).digest == layout.digest, "as for a model that was loaded"


def test_what_is_kept_of_a_weight_holds_no_more_memory_than_it_needs():
    model = model_of("experts")
    values = dict(model.named_parameters())
    for part in layout_of(model, 5000).parts:
        for name in part.weights:
            for value in part.tensors_of(model, name, values[name]).values():
                assert value.untyped_storage().nbytes() == value.nbytes
                assert value.untyped_storage().data_ptr() != values[name].untyped_storage().data_ptr()


def test_tensors_made_of_several_weights_are_left_to_one_rank(tmp_path):
    model = fused_when_stored()
    layout = layout_of(model, FILE_BYTES)
    (part,) = layout.parts
    assert part.is_joint
    assert len(part.files) > 3
    files = write(model, layout, tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs", max_shard_size=FILE_BYTES)
    assert files == files_in(tmp_path / "theirs")
    assert "model.layers.1.self_attn.qkv_proj.weight" in tensors_in(tmp_path / "ours")


def test_buffers_are_stored_and_what_an_architecture_leaves_out_is_not():
    model = model_of("untied")
    model._keys_to_ignore_on_save = {"lm_head.weight", "scratch"}
    buffers = {"statistics": torch.ones(3), "scratch": torch.ones(9)}
    layout = lay_out(model, dict(model.named_parameters()), buffers, 10**9)
    ((names,),) = (part.files.values() for part in layout.parts)
    assert names[-1] == "statistics"
    assert not {"lm_head.weight", "scratch"} & set(names)


def test_a_folder_that_another_rank_has_made_and_this_one_does_not_see_is_an_error(tmp_path):
    model = model_of("tied")
    (part,) = layout_of(model, 10**9).parts
    with pytest.raises(TrainingError, match="is not there; run_dir must lie on storage that all nodes share"):
        part.write(tmp_path / "elsewhere", model, {})
    assert not (tmp_path / "elsewhere").exists()
