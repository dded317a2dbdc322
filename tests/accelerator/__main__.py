"""``python -m tests.accelerator VERB``: measure, and write what was found as JSON; ``report`` makes a page of it."""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.accelerator.report import write_page

VERBS = ("probe", "exact", "attention", "memory", "throughput", "hand_off", "two_ranks")
REPORT = "report"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status; ``arguments`` are the command line's by default."""
    parser = argparse.ArgumentParser(prog="python -m tests.accelerator", description=__doc__)
    parser.add_argument("verbs", nargs="+", choices=(*VERBS, REPORT), metavar="VERB", help=", ".join((*VERBS, REPORT)))
    parser.add_argument("--tiny", action="store_true", help="shapes that a CPU can afford; the figures mean nothing")
    parser.add_argument("--results", type=Path, default=Path("runs/accelerator"), help="folder of the JSON files")
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    verbs = [verb for verb in options.verbs if verb != REPORT]
    if len(verbs) == 1:
        failed = _run(verbs[0], options.results, tiny=options.tiny)
    else:
        failed = max((_run_apart(verb, options) for verb in verbs), default=0)
    if REPORT in options.verbs:
        print(write_page(options.results))
    return failed


def _run_apart(verb: str, options: argparse.Namespace) -> int:
    """Exit status of a verb in a process of its own: its failure, its context and its memory leave the others alone."""
    command = [sys.executable, "-m", "tests.accelerator", verb, "--results", str(options.results)]
    return int(subprocess.run([*command, *(["--tiny"] if options.tiny else [])]).returncode != 0)


def _run(verb: str, results: Path, *, tiny: bool) -> int:
    """Exit status: 1 where something that must hold does not."""
    module, started = importlib.import_module(f"tests.accelerator.{verb}"), time.monotonic()
    passed = True
    with tempfile.TemporaryDirectory(prefix=f"{verb}-") as scratch:
        measured = module.measure(Path(scratch), tiny=tiny)
        # A verb of many cases gives what it has after each, so that a machine that is taken back leaves that.
        for found in [measured] if isinstance(measured, dict) else measured:
            noted = found | {"seconds": round(time.monotonic() - started, 1), "tiny": tiny}
            (results / f"{verb}.json").write_text(json.dumps(noted, indent=2) + "\n")
            print(json.dumps({verb: noted}, indent=1), flush=True)
            passed = noted.get("passed", True)
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
