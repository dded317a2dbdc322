"""Read the answer of an output, and compare it with its reference without asking a model."""

from sftkey_dist.evaluation.answers.checks import Case, Check, FunctionOfUsers, judged_by_check, make_check
from sftkey_dist.evaluation.answers.find import FoundAnswer, find_answer
from sftkey_dist.evaluation.answers.same import first_same

__all__ = [
    "Case",
    "Check",
    "FoundAnswer",
    "FunctionOfUsers",
    "find_answer",
    "first_same",
    "judged_by_check",
    "make_check",
]
