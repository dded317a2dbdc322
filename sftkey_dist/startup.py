"""How a process loads its libraries: of the time until a run's first step, most is spent on imports."""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_NO_COMPILER = "TORCHDYNAMO_DISABLE"


@contextmanager
def loading_libraries(*, without: Sequence[str] = ()) -> Iterator[None]:
    """Import libraries in the block, in three quarters of the time.

    Garbage is not collected while they load, and what they define, which lives as long as the process, is left out of
    later collections.

    Args:
        without: modules that cannot be imported in the block, for libraries that load at once what they only offer.
    """
    is_outermost, known = gc.isenabled(), len(sys.modules)
    hidden = {name: sys.modules.get(name) for name in without}
    sys.modules.update(dict.fromkeys(without))  # type: ignore[arg-type]  # None is how Python itself marks them
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
            if len(sys.modules) > known:  # another time there may be nothing to load, but data to collect
                gc.freeze()
            gc.enable()


@contextmanager
def leaving_functions_uncompiled() -> Iterator[None]:
    """Import a library in the block that has torch compile a function; loading the compiler takes seconds."""
    before = os.environ.get(_NO_COMPILER)
    os.environ[_NO_COMPILER] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NO_COMPILER]
        else:
            os.environ[_NO_COMPILER] = before
