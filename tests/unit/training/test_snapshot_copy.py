"""Copies to the host by way of buffers that are used again and again."""

import pytest
import torch

from sftkey_dist.training.checkpoint.shards import copied_through

BUFFER_VALUES = 8


class Event:
    """Of a device that copies when it is waited for, as an accelerator may."""

    waited = 0

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        Event.waited += 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("numel", [0, 1, 7, 8, 9, 16, 17, 63, 64, 65])
def test_every_length_is_copied_whole_and_every_part_is_waited_for(numel, dtype):
    buffers = [torch.empty(BUFFER_VALUES) for _ in range(2)]
    values = torch.randn(numel).to(dtype)
    Event.waited = 0
    copied = copied_through(buffers, values, Event)
    assert torch.equal(copied, values)
    of_a_buffer = BUFFER_VALUES * 4 // values.element_size()
    assert Event.waited == max(1, -(-numel // of_a_buffer))
    values.zero_()
    assert numel == 0 or copied.abs().sum() > 0, "no view of what changes with the next step"
