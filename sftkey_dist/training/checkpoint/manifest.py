"""What makes a folder of shards a checkpoint."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sftkey_dist.config.secrets import in_a_line
from sftkey_dist.digests import FileNote
from sftkey_dist.errors import CheckpointError

_MAX_BYTES = 64 * 2**20


class Manifest(BaseModel):
    """Names the files of a checkpoint; rank 0 writes it last, when every shard is on storage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    """Name of the stage's folder, which ends in the digest of all that the stage depends on."""
    steps_done: int = Field(ge=1)
    """Optimizer steps that are in the weights."""
    world_size: int = Field(ge=1)
    """Number of ranks that wrote it."""
    members_digest: int
    """Digest of the last step's examples; a resumed stage must plan the same."""
    numel: dict[str, int]
    """Elements of every trained parameter."""
    shards: tuple[FileNote, ...]
    """Size and digest of each rank's shard, in rank order."""
    candidate: int | None = None
    """The guard's model that a stage going on from here will look for, by the steps done when it was taken."""
    versions: dict[str, str]
    """Versions of the libraries that wrote it."""


def parse_manifest(content: bytes, stage: str) -> Manifest:
    """
    Raises:
        CheckpointError: it is not what rank 0 of this stage writes.
    """
    if len(content) > _MAX_BYTES:
        raise CheckpointError(f"the manifest has {len(content)} bytes")
    try:
        manifest = Manifest.model_validate_json(content, strict=True)
    except (ValidationError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the manifest is damaged ({in_a_line(error, 120)})") from error
    if len(manifest.shards) != manifest.world_size:
        raise CheckpointError(f"the manifest names {len(manifest.shards)} shards of {manifest.world_size} ranks")
    if manifest.stage != stage:
        raise CheckpointError(f"it belongs to stage {manifest.stage}")
    return manifest
