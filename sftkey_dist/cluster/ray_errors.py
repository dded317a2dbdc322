"""What an error of Ray says, in one line."""

import re
import textwrap

_MAX_CHARACTERS = 200
_MEMORY_RAN_OUT = re.compile(r"running low on memory.*?was (\S+) used / (\S+) limit", re.DOTALL)


def in_one_line(error: BaseException) -> str:
    """The cause, shortened.

    Errors of Ray end with it, after a traceback, except where its monitor has ended processes because memory ran out:
    there a page of statistics and advice follows.
    """
    if found := _MEMORY_RAN_OUT.search(str(error)):
        used, limit = found.groups()
        return (
            f"the memory of a node ran out ({used} of {limit} in use), and Ray ended processes; end others, or lower "
            f"cluster.num_workers, training.micro_batch_tokens or evaluation.batch_size"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(lines[-1], _MAX_CHARACTERS, placeholder=" …") if lines else type(error).__name__
