"""Faster imports of libraries, which take most of the time until a run's first step."""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

UNUSED_BY_LANGUAGE_MODELS = ("scipy",)
"""What transformers loads with every model for the losses of object detectors."""
_NO_COMPILER = "TORCHDYNAMO_DISABLE"


@contextmanager
def loading_libraries(*, without: Sequence[str] = ()) -> Iterator[None]:
    """Import libraries in the block in three quarters of the usual time.

    The garbage collector is off during the imports. Objects that they create live as long as the process, so they are
    excluded from later collections.

    Args:
        without: modules that cannot be imported in the block, such as optional dependencies that a library would load
            although they are not needed.
    """
    is_outermost, known = gc.isenabled(), len(sys.modules)
    hidden = {name: sys.modules.get(name) for name in without}
    sys.modules.update(dict.fromkeys(without))  # type: ignore[arg-type]  # None marks a module that cannot be imported
    gc.disable()
    try:
        yield
    finally:
        for name, module in hidden.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        if is_outermost:
            if len(sys.modules) > known:  # if nothing was loaded, there may be data that must be collected later
                gc.freeze()
            gc.enable()


@contextmanager
def leaving_functions_uncompiled() -> Iterator[None]:
    """Import a library that compiles functions with torch, without loading the compiler, which takes seconds."""
    before = os.environ.get(_NO_COMPILER)
    os.environ[_NO_COMPILER] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NO_COMPILER]
        else:
            os.environ[_NO_COMPILER] = before
