"""GSM8K (`openai/gsm8k`): calculator annotations are removed, and the last line contains the answer.

``{"question": "Natalia sold clips to 48 of her friends in April, and then …",
"answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\\nNatalia sold … in April and May.\\n#### 72"}``
"""

import re

from sftkey_dist.data.adapters.columns import RowError, text
from sftkey_dist.data.adapters.content import Content, DataSet, Row


def adapt(row: Row) -> Content:
    """See the module."""
    question, solution = text(row, "question"), text(row, "answer")
    reasoning, mark, answer = solution.rpartition("####")
    if not mark or not answer.strip():
        raise RowError("no_answer", "field 'answer' has no line '#### <answer>'; add it or remove the row")
    reasoning = re.sub(r"<<[^<>]*>>", "", reasoning).strip()
    if not reasoning:
        raise RowError("no_reasoning", "field 'answer' has no reasoning before '####'; add it or remove the row")
    return Content(question.strip(), {"reasoning": reasoning, "answer": answer.strip()})


DATA_SET = DataSet(adapt, check="numeric", is_in_paper=True)
