"""The trainer that starts workers on Ray: Ray Train's, with less to start, and on loopback where it can be.

Ray's controller imports this module before anything else, so it must be light. `TorchTrainer` would load torch in the
controller, which needs none of it, while the workers wait.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.util import TrainingFramework
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from sftkey_dist.training.workers.process_group import LOOPBACK, join, load_libraries, on_own_device, serve_store


@dataclass
class ProcessGroupConfig(BackendConfig):
    """How workers join a process group of torch.

    Attributes:
        backend: of torch.distributed: `gloo` or `nccl`.
        timeout_seconds: longest wait of a rank for another.
        on_loopback: whether all ranks are on this machine, so that the store of rank 0 listens on loopback only.
    """

    backend: str
    timeout_seconds: int
    on_loopback: bool

    @property
    def backend_cls(self) -> type[Backend]:
        """See BackendConfig."""
        return _ProcessGroupBackend

    @property
    def train_func_context(self) -> Callable[[], Any]:
        """See BackendConfig."""
        return on_own_device

    @property
    def framework(self) -> TrainingFramework:
        """See BackendConfig."""
        return TrainingFramework.TORCH


class _ProcessGroupBackend(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: ProcessGroupConfig) -> None:
        """Have all workers join the process group."""
        loaded = worker_group.execute_async(load_libraries)
        if backend_config.on_loopback:
            address, port = LOOPBACK, worker_group.execute_single(0, serve_store)
        else:
            address, port = worker_group.execute_single(0, get_address_and_port)
        backend, seconds = backend_config.backend, backend_config.timeout_seconds
        num_ranks = len(worker_group)
        joined = [
            worker_group.execute_single_async(rank, join, backend, seconds, address, port, rank, num_ranks)
            for rank in range(num_ranks)
        ]
        ray.get([*loaded, *joined])

    def on_shutdown(self, worker_group: Any, backend_config: ProcessGroupConfig) -> None:
        """Workers end with their process group; asking each to leave it first waits 30 s for one that is frozen."""


class StartLimit(WorkerGroupCallback):
    """Ends the controller, and the workers with it, when they do not start: Ray waits for a frozen one for good."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    @contextmanager
    def on_worker_group_start(self) -> Iterator[None]:
        """Entered in the controller while the processes start, load their libraries and join the process group."""
        timer = threading.Timer(self._seconds, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


class Trainer(DataParallelTrainer):
    """Without the actor that would hand out Ray data sets, of which there are none."""

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()
        return [callback for callback in made if not isinstance(callback, DatasetsCallback)]

    def abandon(self) -> bool:
        """End `fit` in the thread that waits for it.

        Returns:
            Whether it will end. Ray's own way to start a controller does not hand it out, so here it will not.
        """
        return False


class TrainerOfOwnCluster(Trainer):
    """Without two actors more, of which each takes as long to start as a rank.

    One frees the places of a driver that has died: here the cluster ends with the driver, and has no dashboard that
    could be asked whether it is alive. The other asks for nodes: here there is one.
    """

    _controller: Any = None

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()
        return [callback for callback in made if not isinstance(callback, PlacementGroupCleanerCallback)]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        """Run the controller in one of the processes that Ray has started already.

        Ray itself asks for one with the controller's environment variables. Such a process does not exist yet, and is
        started twice: first to set them.
        """
        settings |= {"scaling_policy": _OneNode(scaling_config=self.scaling_config)}
        self._controller = ray.remote(num_cpus=0)(_Controller).remote(get_env_vars_to_propagate(), **settings)
        ray.get(self._controller.run.remote())
        return ray.get(self._controller.get_result.remote())

    def abandon(self) -> bool:
        """Kill the controller, so that `fit` fails in the thread that waits for it.

        A thread that still waits when Ray shuts down makes Ray end the process, with an exit code of its own.
        """
        if self._controller is not None:
            ray.kill(self._controller)
        return self._controller is not None


class _Controller(TrainController):
    def __init__(self, environment: dict[str, str], **settings: Any) -> None:
        os.environ.update(environment)
        super().__init__(**settings)


class _OneNode(FixedScalingPolicy):
    def after_controller_start(self, train_run_context: Any) -> None:
        """Do not register the run with an autoscaler."""

    def _maybe_send_resource_request(self) -> None:
        """Do not renew a registration that was not made."""
