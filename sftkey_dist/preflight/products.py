"""Matrix products on the devices of a node: how fast they are, and whether they are right."""

import time

import torch

from sftkey_dist.preflight.records import Speed, Speeds

_SECONDS_OF_A_DEVICE = 0.3
_CORE_SIZE, _ACCELERATOR_SIZE = 512, 4096
"""Rows of the matrices: powers of two, which bfloat16 can represent."""


def measure_speeds(*, with_accelerators: bool) -> Speeds:
    """Multiply matrices on one core, and on each accelerator that torch sees."""
    torch.set_num_threads(1)
    core = multiply(torch.device("cpu"), _CORE_SIZE, torch.float32)
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())] if with_accelerators else []
    return Speeds(core, tuple(multiply(device, _ACCELERATOR_SIZE, torch.bfloat16) for device in devices))


def multiply(device: torch.device, size: int, dtype: torch.dtype) -> Speed:
    """Multiply matrices of ones for a moment, and check the product, whose elements must equal ``size``."""
    try:
        ones = torch.ones(size, size, device=device, dtype=dtype)
        product, seconds = _timed_product(ones)  # the first one loads kernels
        started = time.perf_counter()
        while time.perf_counter() - started < _SECONDS_OF_A_DEVICE:
            product, again = _timed_product(ones)
            seconds = min(seconds, again)
        if not bool((product == size).all()):
            return Speed(problem=f"a matrix product on {device} is wrong", is_wrong=True)
    except RuntimeError as error:  # of CUDA: out of memory, busy, or broken
        return Speed(problem=f"{device} cannot multiply matrices ({str(error).splitlines()[0][:150]})")
    return Speed(2 * size**3 / seconds)


def _timed_product(ones: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The product of a matrix with itself, and the seconds that it takes."""
    started = time.perf_counter()
    product = ones @ ones
    if ones.is_cuda:
        torch.cuda.synchronize(ones.device)
    return product, time.perf_counter() - started
