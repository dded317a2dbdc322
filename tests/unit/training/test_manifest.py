import json

import pytest

from sftkey_dist.digests import FileNote
from sftkey_dist.errors import CheckpointError
from sftkey_dist.training.checkpoint.manifest import Manifest, parse_manifest

MANIFEST = Manifest(
    stage="full-1",
    steps_done=3,
    world_size=2,
    members_digest=7,
    numel={"weight": 4},
    shards=(FileNote(bytes=8, sha256="0" * 64), FileNote(bytes=8, sha256="1" * 64)),
    versions={"torch": "2.13.0"},
)


def test_is_read_as_it_was_written():
    assert parse_manifest(MANIFEST.model_dump_json().encode(), "full-1") == MANIFEST


@pytest.mark.parametrize(
    ("change", "stage", "reason"),
    [
        ({}, "full-2", "it belongs to stage full-1"),
        ({"world_size": 3}, "full-1", "names 2 shards of 3 ranks"),
        ({"steps_done": 0}, "full-1", "damaged"),
        ({"world_size": "2"}, "full-1", "damaged"),
        ({"another": 1}, "full-1", "damaged"),
        ({"versions": {"torch": "x" * 65 * 2**20}}, "full-1", "bytes"),
    ],
    ids=["of another stage", "a shard missing", "no steps", "a text for a number", "an unknown key", "too large"],
)
def test_what_is_no_manifest_of_the_stage_is_refused(change, stage, reason):
    content = json.dumps(MANIFEST.model_dump(mode="json") | change).encode()
    with pytest.raises(CheckpointError, match=reason):
        parse_manifest(content, stage)
