r"""OpenR1-Math-220k (`open-r1/OpenR1-Math-220k`): the first generation that is complete and verified is used.

``{"problem": "Task B-1.3. A ship traveling along a river …", "solution": "…", "answer": "v_{R}=4\\mathrm{~km}/…",
"generations": ["<think>\\nOkay, so …</think>\\n\\nGiven …: \\boxed{4}", "<think>…"], "correctness_math_verify":
[true, false], "is_reasoning_complete": [true, true], "messages": […]}``
"""

from sftkey_dist.data.adapters.columns import RowError, items, text
from sftkey_dist.data.adapters.content import Content, DataSet, Row


def adapt(row: Row) -> Content:
    """See the module."""
    generations = items(row, "generations")
    verified, complete = items(row, "correctness_math_verify"), items(row, "is_reasoning_complete")
    good = [g for g, v, c in zip(generations, verified, complete, strict=False) if v and c and isinstance(g, str)]
    if not good:
        raise RowError("no_correct_generation", "no generation is complete and verified by its flags")
    reasoning, closing, _ = good[0].partition("</think>")
    reasoning = reasoning.strip().removeprefix("<think>").strip()
    if not closing or not reasoning:
        raise RowError("no_reasoning", "the generation has no <think>…</think>")
    return Content(text(row, "problem").strip(), {"reasoning": reasoning, "answer": text(row, "answer").strip()})


DATA_SET = DataSet(adapt, check="math", is_in_paper=True)
