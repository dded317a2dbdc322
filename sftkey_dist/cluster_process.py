"""Holds a private Ray cluster: ``python cluster_process.py NUM_CPUS OBJECT_STORE_BYTES FOLDER``.

It starts Ray's processes, writes the address of the cluster to its output, and ends them and removes the folder when
the command that uses the cluster closes its input or has ended, in whatever way. `ray start` would also start what a
single command does not need.
"""

import os
import select
import shutil
import sys

from ray._private.node import Node
from ray._private.parameter import RayParams

_UNUSED = ("start_api_server", "start_monitor", "start_log_monitor")
"""They start the dashboard's server, which runs even without a dashboard, the autoscaler, and the process that sends
logs to a driver, which ours does not print. They take seconds to start, and Ray has no setting for this."""

_SECONDS_BETWEEN_LOOKS = 1.0


def main(num_cpus: str, object_store_bytes: str, folder: str) -> None:
    """Start the cluster, hold it as long as it may be used, and end it."""
    command = os.getppid()
    for name in _UNUSED:
        setattr(Node, name, lambda self, **settings: None)
    settings = RayParams(
        num_cpus=int(num_cpus),
        object_store_memory=int(object_store_bytes),
        include_dashboard=False,
        temp_dir=os.path.join(folder, "r"),
    )
    # As in ray.init: the kernel ends Ray's processes with this one.
    node = Node(settings, head=True, shutdown_at_exit=False, spawn_reaper=True, ray_init_cluster=True)
    print(node.gcs_address, flush=True)
    # Processes that the command has forked may hold the other end of the input open when it has been killed.
    while os.getppid() == command and not select.select([sys.stdin], [], [], _SECONDS_BETWEEN_LOOKS)[0]:
        pass
    node.kill_all_processes(check_alive=False, allow_graceful=True)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
