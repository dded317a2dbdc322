"""The rate at which ranks exchange weights, measured before the first step: a wrong transport slows a whole stage."""

import time

import torch
import torch.distributed as dist

SLOW_GB_PER_SECOND = 20.0
"""An all-gather below this rate is reported. RDMA at 400 Gbit/s a node reaches twice as much; NCCL over TCP a tenth."""

_SHARE_BYTES = 32 * 2**20


def all_gather_gb_per_second(device: torch.device, most_seconds: float = 2.0) -> float:
    """GB a second that a rank receives in all-gathers of 32 MiB from each other rank; all ranks call it together."""
    share = torch.zeros(_SHARE_BYTES, dtype=torch.uint8, device=device)
    whole = torch.empty(_SHARE_BYTES * dist.get_world_size(), dtype=torch.uint8, device=device)
    received = whole.numel() - share.numel()
    _gather(whole, share)  # connects the ranks
    seconds = _gather(whole, share)
    # All ranks must repeat it equally often, so rank 0 decides.
    number = torch.tensor(max(1, int(most_seconds / max(seconds, 1e-6))), device=device)
    dist.broadcast(number, 0)
    rates = [received / _gather(whole, share) for _ in range(min(int(number), 20))]
    return max(rates) / 1e9


def _gather(whole: torch.Tensor, share: torch.Tensor) -> float:
    """Seconds that one all-gather takes."""
    started = time.perf_counter()
    dist.all_gather_into_tensor(whole, share)
    if whole.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started
