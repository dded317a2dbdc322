"""Which errors of a file system may pass, so that workers are started again."""

import errno

import pytest
import torch.distributed as dist

from sftkey_dist.errors import StorageError, TrainingError
from sftkey_dist.training.checkpoint.storage_errors import is_transient
from sftkey_dist.training.engine.store_collectives import StoreCollectives


@pytest.fixture
def store_collectives(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield StoreCollectives(5)
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("number", "passes"),
    [(errno.ESTALE, True), (errno.ETIMEDOUT, True), (errno.EIO, True), (errno.ENOSPC, False), (errno.EROFS, False)],
)
def test_an_error_of_a_server_that_is_away_may_pass_and_a_full_disk_may_not(number, passes, store_collectives):
    error = OSError(number, "x")
    assert is_transient(error) is passes
    message = r"rank 0 could not write the model's weights \(.*x\)"
    with pytest.raises(TrainingError, match=message) as raised, store_collectives.together("the model's weights"):
        raise error
    assert isinstance(raised.value, StorageError) is passes


def test_errors_of_the_code_do_not_pass():
    assert not is_transient(ValueError("x"))
    assert is_transient(StorageError("the store does not answer"))
