"""Checks before the first step whether the models of a run fit into the memory of the cluster's accelerators."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sftkey_dist.capacity import ACCELERATORS, Accelerator, Cluster, StageCapacity
from sftkey_dist.capacity.hardware import GIB
from sftkey_dist.cluster.connection import devices_of_nodes, host_memory_gib, most_gpus_of_a_node
from sftkey_dist.config.evaluation import LocalJudgeConfig
from sftkey_dist.config.paths import is_local_model
from sftkey_dist.config.run import RunConfig
from sftkey_dist.console import console
from sftkey_dist.errors import ConfigError, ModelError
from sftkey_dist.evaluation.judge.jury import judge_folder
from sftkey_dist.files import write_json_atomically
from sftkey_dist.models.accelerator import Device, weights_bytes_in
from sftkey_dist.models.shape import count_parameters
from sftkey_dist.pipeline.capacity import stage_capacities, weight_bytes
from sftkey_dist.pipeline.environment import describe_environment
from sftkey_dist.pipeline.run_plan import RunPlan

_PLANNED_STEPS = 4
_SURELY = 0.85
"""A stage is refused only if it does not fit even at this share of the predicted memory. On an H100 the prediction is
5 % too high (tests/accelerator)."""
_GENERATION_SHARE = 0.9
"""Share of an accelerator's memory that weights may take during generation; the rest is for keys and values."""


def require_fit(plan: RunPlan) -> None:
    """Compare the memory that training, guard and evaluation need with the memory of the cluster's accelerators.

    Raises:
        ConfigError: something cannot fit, or workers need accelerators but no driver answers. The message names the
            remedy.
    """
    config = plan.config
    if not config.cluster.gpus_per_worker:
        return
    devices = devices_of_nodes()
    if not devices:
        raise ConfigError(
            "cluster.gpus_per_worker=1, but NVIDIA's driver answers on no node (nvidia-smi); install the driver, or "
            "make the devices visible to containers"
        )
    smallest = min(devices, key=lambda device: device.memory_gib)
    drivers = ", ".join(sorted({device.driver for device in devices}))
    seen = {"accelerators": f"{len(devices)} x {smallest.name}", "driver": drivers}
    write_json_atomically(plan.run.environment, describe_environment() | seen)
    cluster = Cluster(1, config.cluster.num_workers, accelerator_like(smallest))
    try:
        parameters, stages = stage_capacities(plan, cluster, _PLANNED_STEPS)
    except ModelError as error:  # an architecture that does not run on shapes may train all the same
        console.print(f"whether a stage fits is not known: {error}", soft_wrap=True, markup=False)
        parameters, stages = count_parameters(plan.preparation.model_dir), []
    room = Room(
        smallest.memory_gib,
        host_memory_gib(),
        sizes_of_judges(config),
        gpus_per_node=cluster.gpus_per_node,
        most_gpus_of_a_node=max(1, most_gpus_of_a_node()),
    )
    problems = problems_of(config, parameters, stages, room)
    if problems:
        raise ConfigError("; ".join(problems))
    for stage in stages:
        needed = max(stage.estimate.memory.total_gib, _guarding_gib(stage))
        if needed > smallest.memory_gib:
            console.print(
                f"{stage.name}: a rank may need {needed:.0f} GiB, an accelerator has {smallest.memory_gib:.0f}; if "
                f"memory runs out, {_remedy(stage, room)}",
                soft_wrap=True,
                markup=False,
            )


@dataclass(frozen=True)
class JudgeSize:
    """The path of a local judge, the size of its weights, and the number of its accelerators."""

    path: str
    weights_gib: float
    num_gpus: int


@dataclass(frozen=True)
class Room:
    """The memory of the cluster, and the judges that must fit into it.

    Attributes:
        device_gib: memory of an accelerator.
        host_gib: memory of all nodes together; inf if it is not known.
        judges: the local judges.
        gpus_per_node: accelerators of the nodes that a stage was planned for.
        most_gpus_of_a_node: accelerators of the largest node.
    """

    device_gib: float
    host_gib: float = math.inf
    judges: tuple[JudgeSize, ...] = ()
    gpus_per_node: int = 1
    most_gpus_of_a_node: int = 8


def problems_of(config: RunConfig, num_parameters: int, stages: Sequence[StageCapacity], room: Room) -> list[str]:
    """Descriptions of everything that cannot fit, each with a remedy.

    Args:
        config: configuration of the run.
        num_parameters: number of parameters of the model.
        stages: capacity of the stages on the run's ranks, which are taken for those of one node.
        room: memory of the cluster.
    """
    model_gib = num_parameters * weight_bytes(config) / GIB
    training = [
        f"{stage.name}: a rank would need about {stage.estimate.memory.total_gib:.0f} GiB and an accelerator has "
        f"{room.device_gib:.0f}; {_remedy(stage, room)}"
        for stage in stages
        if stage.estimate.memory.total_gib * _SURELY > room.device_gib
    ]
    hosts = [
        f"{stage.name}: the hosts would need about {stage.estimate.host.total_gib:.0f} GiB for what is offloaded and "
        f"for a checkpoint, and all nodes together have {room.host_gib:.0f}; use more nodes, or offload less"
        for stage in stages
        if stage.estimate.host.total_gib * _SURELY > room.host_gib
    ]
    return [
        *training,
        *hosts,
        *_of_the_guard(model_gib, stages, room.device_gib),
        *_of_evaluation(config, model_gib, room),
        *_of_judges(room),
    ]


def accelerator_like(device: Device) -> Accelerator:
    """The known accelerator that matches a device, or else the slowest one, with the memory that the device reports."""
    for known in ACCELERATORS.values():
        if known.name.split("-")[0].upper() in device.name.upper():
            return replace(known, memory_gib=device.memory_gib)
    slowest = min(ACCELERATORS.values(), key=lambda known: known.peak_tflops)
    return replace(slowest, name=device.name, memory_gib=device.memory_gib)


def _of_the_guard(model_gib: float, stages: Sequence[StageCapacity], device_gib: float) -> list[str]:
    """Problems of the guard, which needs a whole model next to the training state on the same accelerator."""
    return [
        f"validation.guard: {stage.name}: beside the {_guarding_gib(stage) - model_gib:.0f} GiB of training, a whole "
        f"model of {model_gib:.0f} GiB does not fit on an accelerator of {device_gib:.0f}; set "
        f"validation.guard.signal=teacher_forced, or guard=null"
        for stage in stages
        if _guarding_gib(stage) * _SURELY > device_gib
    ]


def _guarding_gib(stage: StageCapacity) -> float:
    """Memory in GiB while the guard generates; 0 without a guard."""
    return stage.estimate.guarding.total_gib if stage.estimate.guarding else 0.0


def _of_evaluation(config: RunConfig, model_gib: float, room: Room) -> list[str]:
    if config.evaluation.backend == "endpoint":
        return []
    gpus, device_gib = max(1, config.evaluation_gpus), room.device_gib
    enough = _gpus_for(model_gib, device_gib)
    if gpus > room.most_gpus_of_a_node:
        return [
            f"evaluation.gpus_per_model={gpus}: no node has more than {room.most_gpus_of_a_node} accelerator(s), and a "
            f"model is not spread over nodes; lower it, or generate with a server (evaluation.backend=endpoint)"
        ]
    if enough <= gpus:
        return []
    remedy = (
        f"set evaluation.gpus_per_model={enough}"
        if enough <= room.most_gpus_of_a_node
        else "generate with a server (evaluation.backend=endpoint, launch/serve/vllm.sh)"
    )
    return [
        f"evaluation: a model of {model_gib:.0f} GiB does not fit on {gpus} accelerator(s) of "
        f"{device_gib:.0f} GiB; {remedy}"
    ]


def _of_judges(room: Room) -> list[str]:
    return [
        f"evaluation.judge: {judge.path}: its weights of {judge.weights_gib:.0f} GiB do not fit on {judge.num_gpus} "
        f"accelerator(s) of {room.device_gib:.0f} GiB; set gpus_per_model={enough} of this judge, or ask a server"
        for judge in room.judges
        if (enough := _gpus_for(judge.weights_gib, room.device_gib)) > judge.num_gpus
    ]


def sizes_of_judges(config: RunConfig, *, only_local: bool = False) -> tuple[JudgeSize, ...]:
    """The sizes of the judges that a run loads itself; with ``only_local`` without those that are on the hub."""
    judge = config.evaluation.judge
    local = [one for one in judge.judges if isinstance(one, LocalJudgeConfig)] if judge is not None else []
    local = [one for one in local if not only_local or is_local_model(one.path)]
    return tuple(
        JudgeSize(one.path, weights_bytes_in(judge_folder(one)) / GIB, one.gpus_per_model or 1) for one in local
    )


def _gpus_for(model_gib: float, device_gib: float) -> int:
    """Accelerators that a model needs for generation, a power of two."""
    return 2 ** max(0, math.ceil(math.log2(model_gib / (_GENERATION_SHARE * device_gib)))) if model_gib else 1


def _remedy(stage: StageCapacity, room: Room) -> str:
    if stage.help is not None and stage.help[1].fits and stage.help[1].host.total_gib * _SURELY <= room.host_gib:
        return f"set {stage.help[0].split(' (')[0]}"
    if stage.smallest_nodes is not None and stage.smallest_nodes > 1:
        return f"use {stage.smallest_nodes * room.gpus_per_node} ranks (cluster.num_workers)"
    return "use more ranks (cluster.num_workers) or shorter rows (training.micro_batch_tokens)"
