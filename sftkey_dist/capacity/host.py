"""Estimates the host memory of a node, and what writing the exported model takes."""

import math
from dataclasses import dataclass

from sftkey_dist.capacity.hardware import GIB, Cluster
from sftkey_dist.capacity.memory import Memory, input_bytes
from sftkey_dist.capacity.model import ModelSize
from sftkey_dist.config.training import TrainingConfig
from sftkey_dist.training.checkpoint import CHECKPOINT_BYTES
from sftkey_dist.training.weights.layout import MAX_FILE_BYTES

_MASTER_BYTES = 4
_GRADIENT_BYTES_ON_HOST = 8
"""DeepSpeed accumulates offloaded gradients in one float32 buffer, and gives the optimizer those of another one
(deepspeed/runtime/zero/stage3.py)."""


@dataclass(frozen=True)
class Export:
    """What writing the model folder of a stage takes. All ranks write its files side by side.

    Attributes:
        gib: size of the weights.
        files: number of files, at least.
        rank_gib: maximum host memory of a rank, for the file that it fills.
        seconds: time to gather all master weights and to write the files; other ranks than the writers wait.
    """

    gib: float
    files: int
    rank_gib: float
    seconds: float


def estimate_export(size: ModelSize, training: TrainingConfig, cluster: Cluster) -> Export:
    """Estimate the export of a stage's model.

    Each file is filled in the host memory of one rank, from float32 master weights that all ranks gather one by one.

    Args:
        size: sizes of the model.
        training: settings of the training.
        cluster: the cluster.
    """
    total_bytes = size.parameters * exported_bytes(training, cluster.accelerator.compute_bytes)
    files = math.ceil(total_bytes / MAX_FILE_BYTES)
    frozen = size.held - size.trained
    gathered_bytes = size.trained * _MASTER_BYTES + frozen * cluster.accelerator.compute_bytes
    received = gathered_bytes * (cluster.ranks - 1) / cluster.ranks
    gathering = cluster.ring_seconds(received, len(size.layer_weights) * size.num_layers)
    writing = total_bytes / min(cluster.nodes, files) / (cluster.storage_gb_per_second * 1e9)
    file_bytes = min(total_bytes, MAX_FILE_BYTES)
    return Export(total_bytes / GIB, files, file_bytes / GIB, gathering + writing)


def host_memory(
    size: ModelSize, training: TrainingConfig, cluster: Cluster, export: Export, row_tokens: int, passes: int
) -> Memory:
    """Memory of the host of a node, for all of its ranks together.

    Processes, the page cache and the buffers of state that lies on NVMe are not counted.

    Args:
        size: sizes of the model.
        training: settings of the training.
        cluster: the cluster.
        export: what writing the model takes.
        row_tokens: maximum number of tokens of a rank whose layer inputs are offloaded.
        passes: number of passes over the rows of a step; if there are several, the gradient of each is held.
    """
    zero, device = training.zero, cluster.accelerator
    trained, held = size.trained / cluster.ranks, size.held / cluster.ranks
    is_on_host = zero.offload == "cpu"
    of_rank = {
        "master weights and moments": trained * CHECKPOINT_BYTES if is_on_host else 0.0,
        "gradients": trained * _GRADIENT_BYTES_ON_HOST if is_on_host else 0.0,
        "snapshot of a checkpoint": trained * CHECKPOINT_BYTES,
        "weights, partitioned": held * device.compute_bytes if is_on_host and zero.offload_weights else 0.0,
        "gradients of segments": passes * trained * 4 if passes > 1 else 0.0,
        "inputs of layers": row_tokens * input_bytes(size, device) if training.offload_activations else 0.0,
    }
    parts = {name: cluster.gpus_per_node * value for name, value in of_rank.items()}
    parts["files of the exported model"] = min(cluster.gpus_per_node, export.files) * export.rank_gib * GIB
    return Memory({name: value / GIB for name, value in parts.items() if value})


def exported_bytes(training: TrainingConfig, compute_bytes: int) -> int:
    """Bytes of a weight in a stage's model folder, if it is computed with weights of so many bytes."""
    return _MASTER_BYTES if training.export_precision == "float32" else compute_bytes
