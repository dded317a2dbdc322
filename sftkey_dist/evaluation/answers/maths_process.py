"""Compares expressions: a line ``[reference, answer]`` in, ``true``, ``false`` or ``null`` out (see `maths`)."""

import json
import logging
import re
import sys
from typing import Any

from math_verify import parse, verify

_IS_PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{3,}\s+[A-Za-z]{2,}\b")
_HAS_MATHEMATICS = re.compile(r"\$|\\\(|\\\[|\\boxed")


def main() -> None:
    """Answer until the input ends."""
    logging.disable(logging.CRITICAL)
    answers, sys.stdout = sys.stdout, sys.stderr
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_same(*json.loads(line))), file=answers, flush=True)


def _same(reference: str, answer: str) -> bool | None:
    """None where the reference is no expression, or a parser fails on what it meets, which is anything at all."""
    try:
        expected = _parsed(reference)
        return bool(verify(expected, _parsed(answer), timeout_seconds=None)) if expected else None
    except Exception:
        return None


def _parsed(text: str) -> list[Any]:
    """math-verify looks for LaTeX inside mathematics only: what is not prose is put there."""
    is_bare = not (_HAS_MATHEMATICS.search(text) or _IS_PROSE.search(text))
    found: list[Any] = parse(f"${text.strip()}$" if is_bare else text, parsing_timeout=None)
    return found or parse(text, parsing_timeout=None)


if __name__ == "__main__":
    main()
