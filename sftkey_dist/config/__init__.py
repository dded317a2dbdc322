"""Typed configuration: frozen pydantic sections, YAML files, `a.b=value` overrides. Imports no torch, no ray."""

from sftkey_dist.config.load import load_config, load_section
from sftkey_dist.config.schema import RunConfig

__all__ = ["RunConfig", "load_config", "load_section"]
