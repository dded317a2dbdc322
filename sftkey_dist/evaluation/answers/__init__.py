"""Read the answer of an output, and compare it with its reference without asking a model."""

from sftkey_dist.evaluation.answers.checks import Case, Check, FunctionOfUsers, make_check
from sftkey_dist.evaluation.answers.find import FoundAnswer, find_answer

__all__ = ["Case", "Check", "FoundAnswer", "FunctionOfUsers", "find_answer", "make_check"]
