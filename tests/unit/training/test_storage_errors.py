"""Which errors of a file system may pass, so that workers are started again."""

import errno

import pytest
import torch.distributed as dist

from sftkey_dist.errors import StorageError, TrainingError
from sftkey_dist.training.checkpoint.storage_errors import may_pass
from sftkey_dist.training.engine.meeting import Meeting


@pytest.fixture
def meeting(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield Meeting(5)
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("number", "passes"),
    [(errno.ESTALE, True), (errno.ETIMEDOUT, True), (errno.EIO, True), (errno.ENOSPC, False), (errno.EROFS, False)],
)
def test_an_error_of_a_server_that_is_away_may_pass_and_a_full_disk_may_not(number, passes, meeting):
    error = OSError(number, "x")
    assert may_pass(error) is passes
    message = r"rank 0 could not write the model's weights \(.*x\)"
    with pytest.raises(TrainingError, match=message) as raised, meeting.together("the model's weights"):
        raise error
    assert isinstance(raised.value, StorageError) is passes


def test_errors_of_the_code_do_not_pass():
    assert not may_pass(ValueError("x"))
    assert may_pass(StorageError("the store does not answer"))
