"""Find an answer in an output and compare it with its reference, without asking a model."""

from sftkey_dist.evaluation.answers.checks import Case, Check, make_check
from sftkey_dist.evaluation.answers.find import FoundAnswer, find_answer

__all__ = ["Case", "Check", "FoundAnswer", "find_answer", "make_check"]
