"""Sets a stage to where it begins: its newest intact checkpoint, or the weights that it was given."""

import json

from sftkey_dist.errors import CheckpointError, TrainingError
from sftkey_dist.run_dir import StageDir
from sftkey_dist.run_dir.journal import append_event
from sftkey_dist.sampler import StepPlanner
from sftkey_dist.training.checkpoint import CheckpointKeeper, load_shards
from sftkey_dist.training.engine import Engine


def restore(engine: Engine, planner: StepPlanner, checkpoints: CheckpointKeeper, directory: StageDir) -> int:
    """Load the newest intact checkpoint; returns the step to go on with, 0 without one.

    Called on all ranks together.

    Raises:
        TrainingError: the checkpoint's last step had other examples than are planned now.
    """
    if engine.rank == 0:
        checkpoints.remove_torn()
    # Ranks read at different speeds, for longer than a collective may take: they meet at the store instead.
    folders = json.loads(engine.store_collectives.gather(json.dumps(checkpoints.newest_first()))[0])
    for folder in folders:
        problems = [problem for problem in engine.store_collectives.gather(_problem(checkpoints, folder)) if problem]
        if not problems:
            return _load(engine, planner, checkpoints, folder)
        if engine.rank == 0:
            checkpoints.set_aside(folder, problems[0])
            message = f"checkpoint {folder} is damaged, the one before it is used: {problems[0]}"
            append_event(directory.events, "checkpoint_damaged", message)
    if folders and engine.rank == 0:
        message = "no intact checkpoint is left: the stage starts over"
        append_event(directory.events, "started_over", message)
    return 0


def _problem(checkpoints: CheckpointKeeper, folder: str) -> str:
    """What this rank finds wrong with a checkpoint."""
    try:
        checkpoints.verify(folder, checkpoints.read_manifest(folder))
    except CheckpointError as error:
        return str(error)
    return ""


def _load(engine: Engine, planner: StepPlanner, checkpoints: CheckpointKeeper, folder: str) -> int:
    manifest = checkpoints.read_manifest(folder)
    if planner.plan(manifest.steps_done - 1).members_digest != manifest.members_digest:
        raise TrainingError(
            f"checkpoint {folder} was written with another order of the data; remove {checkpoints.storage.place} to "
            f"train the stage from its start"
        )
    load_shards(engine.state, checkpoints.storage, folder, manifest)
    engine.store_collectives.gather("")
    return manifest.steps_done


def start_from_masters(engine: Engine, directory: StageDir) -> None:
    """Start from float32 weights, where the stage before or the base model's folder has them.

    Called on all ranks together.
    """
    unknown = engine.weights.start_from_masters()
    engine.store_collectives.gather("")
    if unknown and engine.rank == 0:
        message = (
            f"{unknown} weights start from their rounding to the compute precision: the folder stores them under other "
            f"names than the model has"
        )
        append_event(directory.events, "rounded_start", message)
