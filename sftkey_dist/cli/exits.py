"""How a command ends: its exit code, and a user's error as one line on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sftkey_dist.console import errors
from sftkey_dist.errors import (
    IncompleteEvaluationError,
    InterruptedRunError,
    RunLostError,
    TrainingError,
    UserError,
)
from sftkey_dist.interrupts import interruptions_kept

_USER_ERROR, _TRAINING_STOPPED, _INCOMPLETE, SIGNALLED = 2, 1, 1, 128
"""Exit codes; the number of the signal is added to the last one, as shells do."""


def require_complete(still_open: list[str]) -> None:
    """
    Raises:
        IncompleteEvaluationError: something is still open.
    """
    if still_open:
        raise IncompleteEvaluationError("\n".join(still_open))


@contextmanager
def user_errors_printed() -> Iterator[None]:
    """Print an error of the block that a user can mend, without a traceback, and exit with its code."""
    try:
        with interruptions_kept():
            yield
    except InterruptedRunError as interrupt:
        errors.print("interrupted; run the same command again to continue", markup=False)
        sys.exit(SIGNALLED + interrupt.signal_number)
    except TrainingError as error:
        errors.print(f"error: {error}", soft_wrap=True, markup=False)
        errors.print("run the same command again to continue from the last checkpoint, if there is one", markup=False)
        sys.exit(_TRAINING_STOPPED)
    except IncompleteEvaluationError as error:
        errors.print(f"incomplete: {error}", soft_wrap=True, markup=False)
        sys.exit(_INCOMPLETE)
    except (UserError, RunLostError) as error:
        errors.print(f"error: {error}", soft_wrap=True, markup=False)
        sys.exit(_USER_ERROR)
    except OSError as error:
        if error.errno is None:  # no error of the system, but a library's own class
            raise
        place = "" if error.filename is None else f"{error.filename}: "
        errors.print(f"error: {place}{error.strerror}", soft_wrap=True, markup=False)
        sys.exit(_USER_ERROR)
