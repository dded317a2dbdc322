"""CoT-Collection (`kaist-ai/CoT-Collection`).

``{"source": "In this task, you're given passages that contain …", "target": "ice cream", "rationale": "The
passage says …", "task": "quoref", "type": "CoT"}``
"""

from sftkey_dist.data.adapters.columns import text
from sftkey_dist.data.adapters.content import Content, DataSet, Row


def adapt(row: Row) -> Content:
    """See the module."""
    values = {"reasoning": text(row, "rationale").strip(), "answer": text(row, "target").strip()}
    return Content(text(row, "source").strip(), values)


DATA_SET = DataSet(adapt, is_in_paper=True)
