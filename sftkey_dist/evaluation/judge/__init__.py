"""Language models that say whether an answer means the same as its reference.

They judge what a model wrote; they never choose what is trained.
"""

from sftkey_dist.evaluation.judge.jury import Jury, JuryUse, Opinion, make_jury
from sftkey_dist.evaluation.judge.template import Question

__all__ = ["Jury", "JuryUse", "Opinion", "Question", "make_jury"]
