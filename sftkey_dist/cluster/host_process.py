"""Holds a private Ray cluster: ``python host_process.py COMMAND NUM_CPUS OBJECT_STORE_BYTES FOLDER``.

It starts Ray's processes, writes the address of the cluster to its output, and ends them when the command (a process
id) closes its input or has ended, in whatever way, or when one of them has died. `ray start` would also start what a
single command does not need.
"""

import os
import select
import shutil
import signal
import sys
import traceback

from ray._private.node import Node
from ray._private.parameter import RayParams

_UNUSED = ("start_api_server", "start_monitor", "start_log_monitor")
"""They start the dashboard's server, which runs even without a dashboard, the autoscaler, and the process that sends
logs to a driver, which ours does not print. They take seconds to start, and Ray has no setting for this."""
_POLL_SECONDS = 1.0


def main(command: int, num_cpus: int, object_store_bytes: int, folder: str) -> None:
    """Hold a cluster, and remove its folder if the command cannot do it any more.

    Args:
        command: id of the process that uses it, which has started this one.
        num_cpus: that it offers.
        object_store_bytes: size of its object store.
        folder: of all its files.
    """
    output = os.dup(1)
    os.dup2(2, 1)  # what Ray's processes write must not be taken for the address
    for name in _UNUSED:
        setattr(Node, name, lambda self, **settings: None)
    settings = RayParams(
        num_cpus=num_cpus,
        object_store_memory=object_store_bytes,
        include_dashboard=False,
        temp_dir=os.path.join(folder, "r"),
    )
    try:
        # As in ray.init: the kernel ends the servers of Ray with this process.
        node = Node(settings, head=True, shutdown_at_exit=False, spawn_reaper=True, ray_init_cluster=True)
        try:
            with open(output, "w") as file:
                print(node.gcs_address, file=file)
            # Processes that the command has forked may hold the other end of the input open when it has been killed.
            while os.getppid() == command and node.remaining_processes_alive() and not _is_closed_within_a_while():
                pass
        finally:
            node.kill_all_processes(check_alive=False, allow_graceful=True)
    finally:
        if os.getppid() != command:  # otherwise the command reads the log in the folder, and removes it
            shutil.rmtree(folder, ignore_errors=True)


def _is_closed_within_a_while() -> bool:
    return bool(select.select([sys.stdin], [], [], _POLL_SECONDS)[0])


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    except Exception:
        traceback.print_exc()  # the command reports the last line
    # Agents of a cluster that has died try to report it for a minute, and would write to the folder again.
    os.killpg(os.getpgrp(), signal.SIGKILL)
