"""Other ways of comparing on the same pairs: exact match, math-verify, and lm-evaluation-harness's filters."""

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from math_verify import parse, verify

from tests.benchmarks.answers.isolated import Isolated
from tests.benchmarks.answers.pairs import Pair, Tally

LIMIT_SECONDS = 5
_HARNESS = "tests.benchmarks.answers.harness"
HARNESS_CHECKS = {"gsm8k flexible-extract": "numeric", "gsm8k strict-match": "numeric", "minerva_math": "math"}
MATH_VERIFY_CHECKS = ("numeric", "math")
_PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{2,} +[A-Za-z]{2,}")
_DELIMITED = re.compile(r"\$|\\boxed|\\\(|\\\[")


class PeerMissingError(Exception):
    """An interpreter cannot import what a peer needs."""


def compare_exactly(pairs: Sequence[Pair]) -> dict[str, Tally]:
    """Equal texts, by check."""
    by_check = {pair.check_name: Tally() for pair in pairs}
    for pair in pairs:
        _add(by_check[pair.check_name], pair, pair.answer.strip() == pair.reference.strip())
    return by_check


def compare_with_math_verify(pairs: Sequence[Pair]) -> dict[str, Tally]:
    """math-verify as its README uses it, by check."""
    by_check = {check: Tally() for check in MATH_VERIFY_CHECKS}
    with Isolated(math_verify_equal, 2 * LIMIT_SECONDS) as are_equal:
        for pair in pairs:
            if pair.check_name in by_check:
                _add(by_check[pair.check_name], pair, are_equal(pair.answer, pair.reference))
    return by_check


def math_verify_equal(answer: str, reference: str) -> bool:
    """Whether math-verify takes the two for equal; its time limits count as not equal."""
    gold, said = (parse(_as_latex(text), parsing_timeout=LIMIT_SECONDS) for text in (reference, answer))
    return bool(verify(gold, said, timeout_seconds=LIMIT_SECONDS))


def compare_with_harness(pairs: Sequence[Pair], python: str) -> dict[str, Tally]:
    """lm-evaluation-harness's filters and metrics, by task, run by an interpreter that has lm-eval[math].

    Raises:
        PeerMissingError: the interpreter does not have it.
    """
    asked = [pair for pair in pairs if pair.check_name in HARNESS_CHECKS.values()]
    done = subprocess.run(
        [python, "-m", _HARNESS],
        input="".join(json.dumps([pair.check_name, pair.answer, pair.reference]) + "\n" for pair in asked),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    if done.returncode:
        raise PeerMissingError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message")
    by_task = {task: Tally() for task in HARNESS_CHECKS}
    for pair, line in zip(asked, done.stdout.splitlines(), strict=True):
        for task, is_equal in json.loads(line).items():
            _add(by_task[task], pair, is_equal)
    return by_task


def all_peers(pairs: Sequence[Pair], python: str, say: Callable[[str], None]) -> dict[tuple[str, str], Tally]:
    """By check and peer; a peer that is not installed is left out and named."""
    found = {(check, "exact match"): tally for check, tally in compare_exactly(pairs).items()}
    found |= {(check, "math-verify"): tally for check, tally in compare_with_math_verify(pairs).items()}
    try:
        by_task = compare_with_harness(pairs, python)
    except PeerMissingError as error:
        say(
            f"lm-evaluation-harness is not installed for {python} ({error}): pip install 'lm-eval[math]' into an"
            " environment of its own, and give its interpreter with --lm-eval-python"
        )
        return found
    return found | {(HARNESS_CHECKS[task], f"lm-eval {task}"): tally for task, tally in by_task.items()}


def _add(tally: Tally, pair: Pair, is_equal: bool) -> None:
    is_right = is_equal == (pair.expected == "correct")
    tally.pairs += 1
    tally.right += is_right
    tally.wrong += not is_right


def _as_latex(text: str) -> str:
    """Bare formulas between dollar signs, as math-verify reads LaTeX; sentences and marked formulas as they are."""
    return text if _DELIMITED.search(text) or _PROSE.search(text) else f"${text}$"
