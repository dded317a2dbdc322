"""Connects a command to a private Ray cluster."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from sftkey_dist.cluster.host import cluster_host, host_ahead, not_started


@contextmanager
def private_cluster(num_cpus: int) -> Iterator[None]:
    """Connect to the private cluster that was started ahead, or to one that ends with the block.

    Raises:
        ConfigError: there is no usable folder for it, or it does not start.
    """
    with ExitStack() as stack:
        host = host_ahead(num_cpus) or stack.enter_context(cluster_host(num_cpus))
        address = host.address()
        stack.enter_context(_settings(host.environment))
        stack.callback(ray.shutdown)
        _connect(address)
        yield


def _connect(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises unrelated classes if one of its processes dies meanwhile
        raise not_started(str(error)) from error


@contextmanager
def _settings(environment: Mapping[str, str | None]) -> Iterator[None]:
    """Have Ray read these variables in the block, though it keeps what it has read of them before."""
    listened_on_all = ray_constants.ENABLE_RAY_CLUSTER
    before = {name: os.environ.get(name) for name in environment}
    _set(environment)
    ray_constants.ENABLE_RAY_CLUSTER = False
    _read_authentication_again()
    try:
        yield
    finally:
        _set(before)
        ray_constants.ENABLE_RAY_CLUSTER = listened_on_all
        _read_authentication_again()


def _read_authentication_again() -> None:
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
