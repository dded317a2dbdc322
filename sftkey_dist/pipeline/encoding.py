"""How the training examples of a run are encoded."""

from pathlib import Path

from sftkey_dist.config.run import RunConfig
from sftkey_dist.contract import Form
from sftkey_dist.data.building.task import Encoding


def encoding_of(config: RunConfig, form: Form, model_dir: Path) -> Encoding:
    """How training examples of a form are encoded, with the tokenizer and the chat template of a prepared model."""
    return Encoding(
        form=form,
        contract=config.contract,
        prompt=config.prompt.of_prepared_model,
        max_length_tokens=config.data.max_length_tokens,
        model_dir=model_dir,
        trust_remote_code=config.model.trust_remote_code,
    )
