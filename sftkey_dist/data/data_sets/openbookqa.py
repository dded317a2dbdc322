"""OpenBookQA (`allenai/openbookqa`, or its original JSONL): the fact, if there is one, is the reasoning.

``{"id": "7-980", "question_stem": "The sun is responsible for", "choices": {"text": ["puppies learning new
tricks", "children growing up and getting old", "flowers wilting in a vase", "plants sprouting, blooming and
wilting"], "label": ["A", "B", "C", "D"]}, "answerKey": "D", "fact1": "the sun is the source of energy for
physical cycles on Earth"}``

``{"id": "8-343", "question": {"stem": "A person wants to start saving money …", "choices": [{"text": "make more
phone calls", "label": "A"}, …]}, "answerKey": "B"}``

The subset `additional` contains the facts. Without them, the contract must not require the reasoning.
"""

from collections.abc import Mapping

from sftkey_dist.data.adapters.columns import RowError, items, optional_text, text, texts
from sftkey_dist.data.adapters.content import Content, DataSet, Row


def adapt(row: Row) -> Content:
    """See the module."""
    if isinstance(row.get("question"), Mapping):
        choices = [choice for choice in items(row, "question.choices") if isinstance(choice, Mapping)]
        stem, labels = text(row, "question.stem"), [text(choice, "label") for choice in choices]
        options = [text(choice, "text") for choice in choices]
    else:
        stem = text(row, "question_stem")
        options, labels = texts(row, "choices.text"), texts(row, "choices.label")
    answer = text(row, "answerKey").strip()
    if answer not in labels or len(options) != len(labels):
        raise RowError("no_such_option", f"field 'answerKey' is {answer!r}, the options are {labels}")
    lines = [f"{label}. {option}" for label, option in zip(labels, options, strict=True)]
    return Content("\n".join([stem, *lines]), {"reasoning": optional_text(row, "fact1").strip(), "answer": answer})


DATA_SET = DataSet(adapt, check="option", is_in_paper=True)
