"""Compares expressions: a line ``[reference, answer]`` in, ``true``, ``false`` or ``null`` out (see `maths`)."""

import json
import logging
import re
import sys
from typing import Any

from math_verify import parse, verify

_HAS_MATHEMATICS = re.compile(r"\$|\\\(|\\\[|\\boxed")


def main() -> None:
    """Answer until the input ends."""
    logging.disable(logging.CRITICAL)
    answers, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_same(*json.loads(line))), file=answers, flush=True)


def _same(reference: str, answer: str) -> bool | None:
    try:
        expected = _parsed(reference)
        return bool(verify(expected, _parsed(answer), timeout_seconds=None)) if expected else None
    except Exception:  # what a parser meets in a model's text is anything at all
        return None


def _parsed(text: str) -> list[Any]:
    """math-verify looks for LaTeX inside mathematics only, so a bare expression is put there."""
    found: list[Any] = parse(text if _HAS_MATHEMATICS.search(text) else f"${text.strip()}$", parsing_timeout=None)
    return found or parse(text, parsing_timeout=None)


if __name__ == "__main__":
    main()
