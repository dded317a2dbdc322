"""DeepSpeed as a library: loaded without what is not used here, and what it keeps in a process from stage to stage."""

import inspect
import warnings
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from sftkey_dist.models.accelerator import without_cudnn_attention
from sftkey_dist.startup import leaving_functions_uncompiled, loading_libraries

# DeepSpeed loads its autotuner, which is not used here and imports MLflow, and its Muon optimizer, which has torch
# compile functions. Muon is imported here because every engine would import it otherwise, and compile them.
with loading_libraries(without=("mlflow",)), leaving_functions_uncompiled():
    import deepspeed
    import deepspeed.ops
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.muon import original_muon
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
    from deepspeed.utils import groups

__all__ = ["MuonWithAuxAdam", "deepspeed", "forget_last_model", "join_process_group", "limit_waits", "orthogonalize_in"]
_half_precision = original_muon.ns_compute_dtype


def join_process_group() -> None:
    """Have DeepSpeed adopt the process group that the launcher made."""
    # torch 2.13 deprecates collectives that deepspeed 0.19 calls several times a step.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
    if not torch.cuda.is_available():
        # None of its ops is to be compiled: that of shared memory takes over a minute, and fails without a compiler.
        # Left to find out which could be, it would run the compiler a dozen times.
        deepspeed.ops.__compatible_ops__ = {}
    without_cudnn_attention()
    deepspeed.utils.nvtx.enable_nvtx = False  # a call before and after each of tens of thousands of functions a step
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo")


def limit_waits(timeout_seconds: float) -> None:
    """Limit the waits in the groups that DeepSpeed makes itself, which have torch's default and not the launcher's."""
    for group in (groups._WORLD_GROUP, groups._ZERO_PARAM_INTRA_PARALLEL_GROUP):
        if group is not None:
            distributed_c10d._set_pg_timeout(timedelta(seconds=timeout_seconds), group)


def orthogonalize_in(precision: str) -> None:
    """Have Muon make updates orthogonal in float32 for a model in float32, and otherwise as DeepSpeed does.

    It takes float16 wherever there is an instruction for it, so that a model in float32 would get other weights on
    other processors, and with other numbers of ranks.
    """
    in_float32 = precision == "float32"
    original_muon.ns_compute_dtype = (lambda _: torch.float32) if in_float32 else _half_precision


def forget_last_model() -> None:
    """Empty what deepspeed 0.19 keeps for the life of the process: the last model's modules, and hpZ's group.

    Workers go on to the next stage, which would find the last one's weights and moments still in memory.
    """
    cached = PartitionedParameterCoordinator._PartitionedParameterCoordinator__params_to_release
    inspect.getclosurevars(cached).nonlocals["func"].cache_clear()
    parameter_offload.FWD_MODULE_STACK.clear()
    if (group := groups._ZERO_PARAM_INTRA_PARALLEL_GROUP) is not None:
        dist.destroy_process_group(group)
        groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None
