"""What this machine has to offer."""

from contextlib import suppress
from pathlib import Path


def free_memory_bytes() -> int:
    """Memory that new processes can use; 0 where the system does not report it as Linux does."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
