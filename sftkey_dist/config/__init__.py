"""Typed configuration: frozen pydantic sections, YAML files, `a.b=value` overrides. Imports no torch, no ray."""

from sftkey_dist.config.load import is_study, is_tuning, load_config, load_section, load_study, load_trial, load_tuning
from sftkey_dist.config.run import RunConfig

__all__ = [
    "RunConfig",
    "is_study",
    "is_tuning",
    "load_config",
    "load_section",
    "load_study",
    "load_trial",
    "load_tuning",
]
