"""Models of runs in MLflow, which shows them beside their scores."""

import re
import tempfile
from pathlib import Path

import transformers
from huggingface_hub import ModelCard
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelInput, LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model
from mlflow.transformers import save_model
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_MODEL_IS_EXTERNAL,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
)

from sftkey_dist.digests import digest_json
from sftkey_dist.models.digests import known_digest
from sftkey_dist.tracking.tracker import ModelNote

_OF_SOURCE = (MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_GIT_COMMIT)
_WEIGHTS = "sftkey.weights"
"""Tag with the digest of the uploaded weights."""
_NOT_IN_A_NAME = re.compile(r"[/:.%\"'\s]+")


def note_model(client: MlflowClient, run_id: str, model: ModelNote) -> None:
    """Note the model that a run made, if that has no model yet. It has the run's name, and no files in MLflow."""
    run = client.get_run(run_id)
    if model_made_by(client, run_id) is not None:
        return
    made = client.create_logged_model(
        run.info.experiment_id,
        name=_NOT_IN_A_NAME.sub("-", str(run.info.run_name)),
        source_run_id=run_id,
        tags={MLFLOW_MODEL_IS_EXTERNAL: "true"} | {k: v for k, v in run.data.tags.items() if k in _OF_SOURCE},
        params={**model.params, "folder": str(model.folder)},
    )
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)


def model_made_by(client: MlflowClient, run_id: str) -> LoggedModel | None:
    """The model that a run made; None if none is noted."""
    outputs = client.get_run(run_id).outputs
    made = outputs.model_outputs if outputs else []
    return client.get_logged_model(made[0].model_id) if made else None


def note_evaluated(client: MlflowClient, run_id: str, model: LoggedModel) -> None:
    """Note that a run evaluates a model."""
    client.log_inputs(run_id, models=[LoggedModelInput(model.model_id)])


def upload_model(client: MlflowClient, run_id: str, folder: Path, trust_remote_code: bool) -> None:
    """Upload the files of the model that a run made, with its card, unless MLflow has them."""
    model = model_made_by(client, run_id)
    if model is None:
        return
    weights = digest_json({file.name: known_digest(file) for file in sorted(folder.glob("*.safetensors"))})
    if MLFLOW_MODEL_IS_EXTERNAL not in model.tags and model.tags.get(_WEIGHTS, weights) == weights:
        return
    # Incomplete uploads do not count, not even where the model has been trained again.
    client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_IS_EXTERNAL: "true", _WEIGHTS: weights})
    with tempfile.TemporaryDirectory() as scratch:
        parts = {
            "model": transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=trust_remote_code),
            "tokenizer": transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code),
        }
        save_model(  # its documentation also allows a path, which fails with transformers 5
            parts,
            f"{scratch}/model",
            task="text-generation",
            model_card=ModelCard((folder / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=True),
            pip_requirements=["torch", "transformers", "accelerate"],
            mlflow_model=Model(run_id=run_id, model_id=model.model_id, artifact_path=model.artifact_location),
        )
        client.log_model_artifacts(model.model_id, f"{scratch}/model")
    client.delete_logged_model_tag(model.model_id, MLFLOW_MODEL_IS_EXTERNAL)
