"""Published data sets. Each is one file here, whose name is the name of its adapter, with a `DATA_SET`."""

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sftkey_dist.data.adapters.content import DataSet


def data_set_names() -> tuple[str, ...]:
    """Names of the files here, none of which is loaded for that."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find_data_set(name: str) -> "DataSet":
    """The data set of a name that `data_set_names` lists."""
    found: DataSet = importlib.import_module(f"{__name__}.{name}").DATA_SET
    return found
