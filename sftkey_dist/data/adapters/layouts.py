"""Adapters turn a raw row into a prompt and named segments; here are those of layouts that many data sets share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.config.rules import RegexRule
from sftkey_dist.contract import Check, ResponseContract
from sftkey_dist.data.adapters.columns import filled, find, optional_text, required_text, text
from sftkey_dist.data.adapters.content import Adapt, AdaptAll, Content, Row, Unusable
from sftkey_dist.data.adapters.messages import Conversations
from sftkey_dist.data.adapters.response import segmented
from sftkey_dist.data.adapters.template import TemplateError, fields_of
from sftkey_dist.data.data_sets import find_data_set
from sftkey_dist.data.segmenting.rules import Rule, resolve_rules
from sftkey_dist.errors import ConfigError
from sftkey_dist.patterns import compile_pattern
from sftkey_dist.suggestion import closest_name

_NO_SEGMENT = "the contract has no segment"


def make_adapter(source: SourceConfig, contract: ResponseContract) -> AdaptAll:
    """The function that converts the rows of a source.

    Raises:
        ConfigError: The adapter cannot provide a segment that the contract requires, or a label is not allowed there.
    """
    adapt = _adapter_of_layout(source, contract)
    _check_labels(source.labels, contract)
    if not source.labels:
        return adapt
    checks = {segment.name: segment.check for segment in contract.segments}
    spellings = {name: _Spellings(labels, checks[name]) for name, labels in source.labels.items()}
    return partial(_with_labels, adapt=adapt, spellings=spellings)


def _adapter_of_layout(source: SourceConfig, contract: ResponseContract) -> AdaptAll:
    rules = resolve_rules(source.rules)
    _check_groups(source, contract)
    _check_template(source)
    if source.adapter == "records":
        columns = _columns(source, contract)
        return _one(partial(records, prompt=source.prompt or "prompt", columns=columns, contract=contract))
    if source.adapter == "prompt_completion":
        return _one(
            partial(
                prompt_completion,
                prompt=source.prompt or "prompt",
                response=source.response,
                rules=rules,
                contract=contract,
            )
        )
    if source.adapter == "messages":
        _check_names("columns", source.columns, ("role", "content"), "a message has no field")
        is_all = source.trained_turns == "all"
        return Conversations(source.messages, source.columns, source.roles, is_all, rules, contract)
    for segment in contract.segments:
        if segment.required and segment.name not in ("reasoning", "answer"):
            raise ConfigError(
                f"adapter: contract segment {segment.name!r} is required, but adapter {source.adapter} provides "
                f"reasoning and answer only; rename the segment, or use adapter records and its columns"
            )
    return _one(find_data_set(source.adapter).adapt)


class _Spellings:
    """The label of every spelling of a segment. Capitals only matter where a text is a label itself, or where spellings
    that differ in nothing else have different labels."""

    def __init__(self, labels: Mapping[str, str], check: Check | None) -> None:
        self._labels, self._check = labels, check
        labels_of: dict[str, set[str]] = {}
        for spelling, label in labels.items():
            labels_of.setdefault(spelling.casefold(), set()).add(label)
        self._of_any_case = {spelling: min(found) for spelling, found in labels_of.items() if len(found) == 1}

    def label_of(self, text: str) -> str:
        """The label of a text, or the text itself if it is no spelling."""
        spelling = text.strip()
        if spelling in self._labels:
            return self._labels[spelling]
        return text if self._is_label(spelling) else self._of_any_case.get(spelling.casefold(), text)

    def _is_label(self, text: str) -> bool:
        return text in self._labels.values() or (self._check is not None and self._check.problem(text) is None)


def _with_labels(row: Row, adapt: AdaptAll, spellings: Mapping[str, _Spellings]) -> Sequence[Content | Unusable]:
    return [
        item if isinstance(item, Unusable) else replace(item, values=_labelled(item.values, spellings))
        for item in adapt(row)
    ]


def _labelled(values: Mapping[str, str], spellings: Mapping[str, _Spellings]) -> dict[str, str]:
    return {name: spellings[name].label_of(text) if name in spellings else text for name, text in values.items()}


def _one(adapt: Adapt) -> AdaptAll:
    return lambda row: [adapt(row)]


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


def _check_groups(source: SourceConfig, contract: ResponseContract) -> None:
    """A segment that a rule finds but the contract does not contain would be lost."""
    names = [segment.name for segment in contract.segments]
    for rule in source.rules:
        unknown = (
            sorted(set(compile_pattern(rule.regex).groupindex) - set(names)) if isinstance(rule, RegexRule) else []
        )
        if unknown:
            raise ConfigError(f"rules: {_NO_SEGMENT} {_known(unknown[0], names)}")


def _check_template(source: SourceConfig) -> None:
    try:
        fields_of(source.prompt or "")
    except TemplateError as error:
        raise ConfigError(f"prompt: {error}") from None


def _columns(source: SourceConfig, contract: ResponseContract) -> dict[str, str]:
    names = [segment.name for segment in contract.segments]
    _check_names("columns", source.columns, names, _NO_SEGMENT)
    return {name: source.columns.get(name, name) for name in names}


def _check_labels(labels: Mapping[str, Mapping[str, str]], contract: ResponseContract) -> None:
    """A label that the contract does not allow would make every row with it malformed."""
    segments = {segment.name: segment for segment in contract.segments}
    _check_names("labels", labels, list(segments), _NO_SEGMENT)
    for name, spellings in labels.items():
        check = segments[name].check
        for spelling, label in spellings.items():
            if check and (problem := check.problem(label)):
                raise ConfigError(f"labels.{name}: the label of {spelling!r} is not allowed in this segment: {problem}")


def _check_names(key: str, given: Iterable[str], known: Sequence[str], problem: str) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"{key}: {problem} {_known(unknown[0], known)}")


def _known(name: str, known: Sequence[str]) -> str:
    close = closest_name(name, known)
    return f"{name!r};{f' did you mean {close}?' if close else ''} it has {', '.join(known)}"
