"""A sharded model with its optimizer, behind a protocol that the rest of the trainer is written against.

``base`` holds the protocol; ``factory`` makes the engine, and alone loads DeepSpeed.
"""

from sftkey_dist.training.engine.base import Engine

__all__ = ["Engine"]
