"""Writes the model that a stage ends in, and tries to before the stage begins."""

from contextlib import nullcontext
from pathlib import Path

import torch

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.errors import ModelError, TrainingError, UserError
from sftkey_dist.files import folder_written_whole, remove_tree, write_text_atomically
from sftkey_dist.models.load import load_tokenizer
from sftkey_dist.run_dir import ModelPlace, StageDir
from sftkey_dist.run_dir.journal import append_event
from sftkey_dist.training.engine import Engine
from sftkey_dist.training.job import StageJob
from sftkey_dist.training.weights.layout import MAX_FILE_BYTES


def try_export(engine: Engine, job: StageJob) -> None:
    """Write all of the model but its weights, and remove it: what cannot be saved is found before the first step.

    Called on all ranks together.

    Raises:
        ModelError: the base model's configuration, generation configuration or tokenizer cannot be saved.
    """
    directory = StageDir(job.stage_dir)
    try:
        left_out = engine.weights.generate_until(job.end_of_turn_id)
        export_model(engine, job, directory.trial_export, with_weights=False)
    except (UserError, OSError):
        raise
    except Exception as error:  # whatever a model's own code or transformers raises
        raise ModelError(
            f"{job.model_dir}: a model trained from it cannot be saved ({in_a_line(error, 300)}); correct "
            f"the configuration, the generation configuration or the tokenizer there"
        ) from error
    if engine.rank == 0:
        remove_tree(directory.trial_export)
        if left_out:
            append_event(
                directory.events,
                "generation_config_changed",
                f"the trained model generates as it is evaluated, so that its generation_config.json is without "
                f"{', '.join(left_out)} of the base model's",
            )


def export_model(
    engine: Engine,
    job: StageJob,
    folder: Path,
    *,
    with_weights: bool = True,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> None:
    """Write the model with its tokenizer as a Hugging Face folder, whole or not at all.

    Called on all ranks together.

    Raises:
        TrainingError: a rank could not write its part of the weights; all ranks raise it.
    """
    writes = engine.rank == 0
    if writes:
        remove_tree(folder)  # of an end that was interrupted before it was recorded
    try:
        with folder_written_whole(folder) if writes else nullcontext(folder) as scratch:
            shared = engine.gather_to_all(scratch)[0]
            dtype = getattr(torch, job.export_precision)
            engine.weights.save_pretrained(shared, dtype, with_weights=with_weights, max_file_bytes=max_file_bytes)
            if writes:
                load_tokenizer(job.model_dir, job.trust_remote_code).save_pretrained(shared)
    except TrainingError:
        engine.wait_for_first_rank()  # a rank that ends has all end: first, what was written is removed
        raise
    engine.wait_for_first_rank()


def note_hand_off(engine: Engine, job: StageJob, place: ModelPlace) -> None:
    """Write what lies beside a model: its rounding, its adapter if it has one, and the masters if a stage needs them.

    Called on all ranks together.
    """
    if job.hands_on_masters:
        engine.weights.save_masters(place.masters)
    engine.weights.save_adapter(place.adapter)
    rounding = engine.weights.compare_with_start(getattr(torch, job.export_precision))
    if engine.rank == 0:
        write_text_atomically(place.rounding, rounding.model_dump_json() + "\n")
