"""Chooses the check for each key segment of each test set, and says which it is."""

from collections.abc import Mapping, Sequence

from sftkey_dist.config.answer_check import AnswerCheck, FunctionCheck, JsonCheck, LabelCheck, RegexCheck
from sftkey_dist.config.data import SourceConfig
from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.contract import ResponseContract
from sftkey_dist.contract.segment import Segment
from sftkey_dist.data.data_sets import data_set_names, find_data_set
from sftkey_dist.digests import digest_file
from sftkey_dist.evaluation.answers.functions import function_file

ChecksBySegment = dict[str, AnswerCheck]

_IN_WORDS = {
    "exact": "exactly",
    "numeric": "as a number",
    "math": "as mathematics",
    "option": "as an option of the question",
    "json": "as JSON",
    "tool_call": "as a tool call",
}


def choose_checks(
    sources: Sequence[SourceConfig], contract: ResponseContract, settings: EvaluationConfig
) -> dict[str, ChecksBySegment]:
    """The check of each key segment, by test set; `auto` is resolved."""
    return {source.data_set: _for_source(source, contract, settings) for source in sources}


def common_checks(
    sources: Sequence[SourceConfig], contract: ResponseContract, settings: EvaluationConfig
) -> ChecksBySegment:
    """The check of each key segment if examples have no known source; `exact` if the checks of the sources differ."""
    found = list(choose_checks(sources, contract, settings).values())
    return {name: check if all(of[name] == check for of in found) else "exact" for name, check in found[0].items()}


def checks_in_words(checks: Mapping[str, ChecksBySegment]) -> str:
    """A line that says how answers are compared with references, by test set."""
    return "answer checks: " + "; ".join(
        f"{data_set} compares {', '.join(f'{segment} {_in_words(check)}' for segment, check in of.items())}"
        for data_set, of in checks.items()
    )


def _in_words(check: AnswerCheck) -> str:
    match check:
        case LabelCheck():
            return f"as a label ({', '.join(check.labels)})"
        case RegexCheck():
            return f"by what {check.regex!r} finds"
        case JsonCheck():
            return f"by its JSON fields ({', '.join(check.json_fields)})"
        case FunctionCheck():
            return f"by the function {check.function.rpartition('/')[2]}"
        case _:
            return _IN_WORDS[check]


def _for_source(source: SourceConfig, contract: ResponseContract, settings: EvaluationConfig) -> ChecksBySegment:
    return {segment.name: _for_segment(source, segment, settings) for segment in contract.key_segments}


def _for_segment(source: SourceConfig, segment: Segment, settings: EvaluationConfig) -> AnswerCheck:
    chosen = source.answer_check or settings.answer_checks.get(segment.name) or settings.answer_check
    if chosen == "label":
        return _labels(segment)
    if isinstance(chosen, FunctionCheck):
        return _found(chosen)
    return _automatic(source, segment) if chosen == "auto" else chosen


def _automatic(source: SourceConfig, segment: Segment) -> AnswerCheck:
    """Resolve `auto`: the contract takes precedence over the data set that the rows come from."""
    check = segment.check
    if check is not None and check.one_of:
        return _labels(segment)
    if check is not None and check.number:
        return "numeric"
    if segment.value == "tool_call":
        return "tool_call"
    if segment.value == "json" or (check is not None and check.json_schema):
        return "json"
    return find_data_set(source.adapter).check if source.adapter in data_set_names() else "exact"


def _found(check: FunctionCheck) -> FunctionCheck:
    """The check with its file's digest and, of a file, with an absolute path, as workers have other folders."""
    place, _, name = check.function.rpartition(":")
    file = function_file(check.function)
    if file is None:
        return check
    return FunctionCheck(function=f"{file if place.endswith('.py') else place}:{name}", digest=digest_file(file))


def _labels(segment: Segment) -> AnswerCheck:
    """The labels of the contract; without any, text is compared exactly."""
    labels = segment.check.one_of if segment.check else None
    return LabelCheck(labels=labels) if labels and len(labels) > 1 else "exact"
