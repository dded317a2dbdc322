"""Adapters: one small function per data set, which turns a raw row into a prompt and named segments."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sftkey_dist.config.data import RegexRule, SourceConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.columns import RowError, filled, find, items, optional_text, required_text, text, texts
from sftkey_dist.data.example import Turn
from sftkey_dist.data.segmenting.rules import Cut, Rule, cut_response, resolve_rules
from sftkey_dist.data.template import TemplateError, fields_of
from sftkey_dist.errors import ConfigError
from sftkey_dist.patterns import compile_pattern

Row = Mapping[str, object]


@dataclass(frozen=True)
class Content:
    """The content of a row: a prompt, the text of each segment, earlier turns, and the kinds of text that were left
    out."""

    prompt: str
    values: Mapping[str, str]
    history: tuple[Turn, ...] = ()
    left_out: tuple[str, ...] = ()


Adapt = Callable[[Row], Content]


def make_adapter(source: SourceConfig, contract: ResponseContract) -> Adapt:
    """The function that converts the rows of a source.

    Raises:
        ConfigError: The adapter cannot provide a segment that the contract requires.
    """
    rules = resolve_rules(source.rules)
    _check_groups(source, contract)
    _check_template(source)
    if source.adapter == "records":
        return partial(records, prompt=source.prompt or "prompt", columns=_columns(source, contract), contract=contract)
    if source.adapter == "prompt_completion":
        return partial(
            prompt_completion,
            prompt=source.prompt or "prompt",
            response=source.response,
            rules=rules,
            contract=contract,
        )
    if source.adapter == "messages":
        return partial(messages, column=source.messages, rules=rules, contract=contract)
    for segment in contract.segments:
        if segment.required and segment.name not in ("reasoning", "answer"):
            raise ConfigError(
                f"contract segment {segment.name!r} is required, but adapter {source.adapter} provides reasoning "
                f"and answer only; rename the segment, or use adapter records and its columns"
            )
    return _DATA_SETS[source.adapter]


def gsm8k(row: Row) -> Content:
    """GSM8K (`openai/gsm8k`): calculator annotations are removed, and the last line contains the answer.

    ``{"question": "Natalia sold clips to 48 of her friends in April, and then …",
    "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\\nNatalia sold … in April and May.\\n#### 72"}``
    """
    question, solution = text(row, "question"), text(row, "answer")
    reasoning, mark, answer = solution.rpartition("####")
    if not mark or not answer.strip():
        raise RowError("no_answer", "field 'answer' has no line '#### <answer>'; add it or remove the row")
    reasoning = re.sub(r"<<[^<>]*>>", "", reasoning).strip()
    if not reasoning:
        raise RowError("no_reasoning", "field 'answer' has no reasoning before '####'; add it or remove the row")
    return Content(question.strip(), {"reasoning": reasoning, "answer": answer.strip()})


def openbookqa(row: Row) -> Content:
    """OpenBookQA (`allenai/openbookqa`, or its original JSONL): the fact, if there is one, is the reasoning.

    ``{"id": "7-980", "question_stem": "The sun is responsible for", "choices": {"text": ["puppies learning new
    tricks", "children growing up and getting old", "flowers wilting in a vase", "plants sprouting, blooming and
    wilting"], "label": ["A", "B", "C", "D"]}, "answerKey": "D", "fact1": "the sun is the source of energy for
    physical cycles on Earth"}``

    ``{"id": "8-343", "question": {"stem": "A person wants to start saving money …", "choices": [{"text": "make more
    phone calls", "label": "A"}, …]}, "answerKey": "B"}``

    The subset `additional` contains the facts. Without them, the contract must not require the reasoning.
    """
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


def openr1_math(row: Row) -> Content:
    r"""OpenR1-Math-220k (`open-r1/OpenR1-Math-220k`): the first generation that is complete and verified is used.

    ``{"problem": "Task B-1.3. A ship traveling along a river …", "solution": "…", "answer": "v_{R}=4\\mathrm{~km}/…",
    "generations": ["<think>\\nOkay, so …</think>\\n\\nGiven …: \\boxed{4}", "<think>…"], "correctness_math_verify":
    [true, false], "is_reasoning_complete": [true, true], "messages": […]}``
    """
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


def cot_collection(row: Row) -> Content:
    """CoT-Collection (`kaist-ai/CoT-Collection`).

    ``{"source": "In this task, you're given passages that contain …", "target": "ice cream", "rationale": "The
    passage says …", "task": "quoref", "type": "CoT"}``
    """
    values = {"reasoning": text(row, "rationale").strip(), "answer": text(row, "target").strip()}
    return Content(text(row, "source").strip(), values)


def records(row: Row, prompt: str, columns: Mapping[str, str], contract: ResponseContract) -> Content:
    """Records with one column per segment.

    ``{"application": "Avery asks for 12000 for a van …", "analysis": "Income is steady …", "decision": "approve"}``
    """
    required = {segment.name for segment in contract.segments if segment.required}
    values = {}
    for segment, column in columns.items():
        nested = f"segments.{segment}"
        place = nested if column == segment and find(row, column) is None and find(row, nested) is not None else column
        values[segment] = (required_text if segment in required else optional_text)(row, place)
    return Content(filled(row, prompt), values)


def prompt_completion(
    row: Row, prompt: str, response: str, rules: Sequence[Rule], contract: ResponseContract
) -> Content:
    """A prompt and a whole response, which is segmented by rules or by the contract.

    ``{"problem": "Each of the two Magellan telescopes has a diameter of $6.5 …", "solution": "Start with: …
    =\\\\boxed{1.6} …", "type": "Introduction to Astronomy (8.282J Spring 2006)", "idx": 0}`` with ``prompt: problem,
    response: solution, rules: [boxed]``
    """
    values, left_out = segmented(text(row, response), rules, contract)
    return Content(filled(row, prompt), values, left_out=left_out)


def messages(row: Row, column: str, rules: Sequence[Rule], contract: ResponseContract) -> Content:
    """A conversation. Its last message is the assistant's response, which is segmented; all earlier ones are context.

    ``{"messages": [{"role": "system", "content": "You grade claims."}, {"role": "user", "content": "My parcel …"},
    {"role": "assistant", "content": "The parcel was insured.\\n#### refund"}]}``
    """
    turns = [_turn(message, column) for message in items(row, column)]
    if len(turns) < 2 or turns[-1].role != "assistant" or turns[-2].role != "user":
        roles = [turn.role for turn in turns][-3:]
        raise RowError(
            "no_last_answer", f"field {column!r} must end with a user and an assistant message, found {roles}"
        )
    values, left_out = segmented(turns[-1].content, rules, contract)
    return Content(turns[-2].content, values, tuple(turns[:-2]), left_out)


def segmented(
    response: str, rules: Sequence[Rule], contract: ResponseContract
) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Segment a whole response by the rules or, without rules, by the contract in either form.

    Returns:
        The text of each segment, and the kinds of text that belong to no segment.
    """
    if rules:
        cut = cut_response(response, rules)
        if isinstance(cut, Cut):
            if cut.doubt is None:
                return cut.values, tuple(cut.removed)
            cut = cut.doubt
        raise RowError(cut.reason, f"the response is not segmented: {cut.detail}; see `sftkey segment`")
    parsed = contract.parse(response, Form.TAGGED)
    if not parsed.keeps_contract:
        plain = contract.parse(response, Form.UNTAGGED)
        parsed = plain if plain.keeps_contract else parsed
    if not parsed.keeps_contract:
        raise RowError(
            "not_segmented",
            f"the response does not keep the contract ({parsed.violation}: {parsed.detail}); give `rules`, or run "
            f"`sftkey segment` first",
        )
    return parsed.values, ()


def _turn(message: object, column: str) -> Turn:
    if not isinstance(message, Mapping):
        raise RowError("missing_field", f"field {column!r} must contain messages with 'role' and 'content'")
    role = text(message, "role")
    if role not in ("system", "user", "assistant"):
        raise RowError("unknown_role", f"field {column!r} has a message of role {role!r}; use system, user, assistant")
    return Turn(role, text(message, "content"))


def _check_groups(source: SourceConfig, contract: ResponseContract) -> None:
    """A segment that a rule finds but the contract does not contain would be lost."""
    names = [segment.name for segment in contract.segments]
    for rule in source.rules:
        unknown = (
            sorted(set(compile_pattern(rule.regex).groupindex) - set(names)) if isinstance(rule, RegexRule) else []
        )
        if unknown:
            raise ConfigError(f"rules: the contract has no segment {unknown[0]!r}; it has {', '.join(names)}")


def _check_template(source: SourceConfig) -> None:
    try:
        fields_of(source.prompt or "")
    except TemplateError as error:
        raise ConfigError(f"prompt: {error}") from None


def _columns(source: SourceConfig, contract: ResponseContract) -> dict[str, str]:
    names = [segment.name for segment in contract.segments]
    unknown = sorted(set(source.columns) - set(names))
    if unknown:
        raise ConfigError(f"columns: the contract has no segment {unknown[0]!r}; it has {', '.join(names)}")
    return {name: source.columns.get(name, name) for name in names}


_DATA_SETS: dict[str, Adapt] = {
    "gsm8k": gsm8k,
    "openbookqa": openbookqa,
    "openr1_math": openr1_math,
    "cot_collection": cot_collection,
}
