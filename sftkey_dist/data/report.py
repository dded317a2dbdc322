"""The data report: rows kept, rows dropped by reason, lengths per segment, duplicates, overlap, truncation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Self

import numpy as np

from sftkey_dist.data.example import Example, Refusal, by_reason
from sftkey_dist.data.repeats import RepeatedRow, repeats_of
from sftkey_dist.data.store import EncodedStore, SourceCounts

_EXAMPLES_PER_REASON = 5
_EXAMPLES_SAID = 3
_QUANTILES = (0.0, 0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class DroppedRows:
    """Rows that were dropped for one reason, with the first few as examples."""

    reason: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class LengthSummary:
    """Numbers of tokens of one segment over all kept examples."""

    segment: str
    mean: float
    quantiles: dict[str, int]


@dataclass(frozen=True)
class Truncation:
    """Effects of the length limits.

    Attributes:
        max_length_tokens: maximum length of an example that is kept.
        dropped: number of rows that are longer.
        longest: tokens of the longest row, including dropped rows.
        share_longer_than: share of all rows that are longer than a number of tokens, by that number.
        max_new_tokens: maximum length of a response that evaluation generates.
        responses_beyond: share of training responses that are longer than that.
    """

    max_length_tokens: int
    dropped: int
    longest: int
    share_longer_than: dict[int, float]
    max_new_tokens: int
    responses_beyond: float


@dataclass(frozen=True)
class LossWeights:
    """Weights that rows have in the loss.

    Attributes:
        least: the smallest one.
        mean: over all examples.
        most: the largest one.
        untrained: examples with weight 0.
    """

    least: float
    mean: float
    most: float
    untrained: int

    def __str__(self) -> str:
        untrained = f", {self.untrained:,} with 0 are not trained" if self.untrained else ""
        return f"; rows weigh {self.least:g} to {self.most:g}, {self.mean:.3g} on average{untrained}"

    @classmethod
    def of(cls, weights: np.ndarray | None) -> Self | None:
        """Describe the weights of a store, float32 [N]."""
        if weights is None:
            return None
        return cls(float(weights.min()), float(weights.mean()), float(weights.max()), int((weights == 0).sum()))


@dataclass(frozen=True)
class SourceReport:
    """Rows kept and dropped of a data set."""

    name: str
    rows: int
    kept: int
    dropped: tuple[DroppedRows, ...]
    special_tokens_in_prompts: dict[str, int]
    """Number of rows whose own prompt contains the text of a special token, by token."""
    left_out: dict[str, int]
    """Number of rows in which a kind of text, such as thinking and sign_off, belongs to no segment, by kind."""
    duplicates: int
    """Number of rows that repeat the prompt and response of another row."""
    conflicts: int
    """Number of prompts that occur with several different responses."""
    repeated: tuple[str, ...]
    """The first few of the rows that repeat another one, each with that one."""
    conflicting: tuple[str, ...]
    """The first few of the rows with the prompt of another one and a different response, each with that one."""

    def to_json(self) -> dict[str, object]:
        """Plain values for a file."""
        return asdict(self) | {"summary": self.one_line()}

    def one_line(self) -> str:
        """The report in a line."""
        dropped = ", ".join(f"{item.count:,} dropped as {item.reason}" for item in self.dropped) or "none dropped"
        left_out = "".join(f", {count:,} without their {kind}" for kind, count in self.left_out.items())
        return f"data {self.name}: {self.kept:,} of {self.rows:,} rows kept, {dropped}{left_out}"

    def warnings(self) -> list[str]:
        """What a person should look at before training."""
        sources = f"data.{self.name.partition(' ')[0]}"
        repeats = {
            f"rows of {sources} repeat another one, prompt and response": (self.duplicates, self.repeated),
            f"prompts of {sources} occur with several responses": (self.conflicts, self.conflicting),
        }
        return [
            f"{count:,} prompts of {sources} contain {token!r}, which the model reads as its special token, not as text"
            for token, count in self.special_tokens_in_prompts.items()
        ] + [
            f"{count:,} {what}, for example {', '.join(rows[:_EXAMPLES_SAID])}; data_rows.jsonl lists all of them"
            for what, (count, rows) in repeats.items()
            if count
        ]


@dataclass(frozen=True)
class DataReport(SourceReport):
    """The report of an encoded data set.

    Attributes:
        digest: digest of the store's contents.
        sources: for each source, its rows, its examples, and the rows that were refused or left out by the mixture.
        not_drawn: usable rows that the mixture left out.
        examples: examples in the store; a mixture may contain a row several times.
        total_tokens: tokens of all examples.
        key_share_of_response: key tokens / response tokens.
        lengths: length statistics per segment.
        overlap: data set and id of test examples whose prompt, ignoring system messages, is also trained on.
        truncation: effects of the length limits.
        loss_weights: of rows with weights of their own.
    """

    digest: str
    sources: tuple[SourceCounts, ...]
    not_drawn: int
    examples: int
    total_tokens: int
    key_share_of_response: float
    lengths: tuple[LengthSummary, ...]
    overlap: tuple[str, ...]
    truncation: Truncation
    loss_weights: LossWeights | None = None

    def one_line(self) -> str:
        """The report in a line."""
        left_out = f", {self.not_drawn:,} left out by weight" if self.not_drawn else ""
        return (
            f"{super().one_line()}{left_out}; {self.total_tokens:,} tokens, "
            f"key tokens {self.key_share_of_response:.1%} of the response{self.loss_weights or ''}"
        )

    def warnings(self) -> list[str]:
        """What a person should look at before training."""
        found = super().warnings()
        if self.overlap:
            what = "test prompts are also trained on (data.drop_overlap=true drops their training rows), for example"
            found.append(f"{len(self.overlap):,} {what} {self.overlap[0]}")
        if self.truncation.dropped:
            found.append(
                f"{self.truncation.dropped:,} of {self.rows:,} rows ({self.truncation.dropped / self.rows:.1%}) of "
                f"data.{self.name} are longer than data.max_length_tokens={self.truncation.max_length_tokens} (the "
                f"longest {self.truncation.longest:,}) and are not trained; raise it to keep them"
            )
        if self.truncation.responses_beyond > 0.01:
            found.append(
                f"{self.truncation.responses_beyond:.1%} of the responses are longer than evaluation.max_new_tokens="
                f"{self.truncation.max_new_tokens}; a model that learned them would be cut off"
            )
        return found


def summarize_source(
    name: str,
    examples: Sequence[Example],
    refusals: Sequence[Refusal],
    special_tokens_in_prompts: Mapping[str, int],
) -> SourceReport:
    """Build the report of a data set that is not encoded."""
    repeats = list(repeats_of(examples).values())
    left_out = Counter(kind for example in examples for kind in example.left_out)
    return SourceReport(
        name,
        len(examples) + len(refusals),
        len(examples),
        _dropped(refusals),
        dict(special_tokens_in_prompts),
        dict(left_out),
        sum(len(of_set.duplicates) for of_set in repeats),
        sum(of_set.conflicting_prompts for of_set in repeats),
        _first_few(*(of_set.duplicates for of_set in repeats)),
        _first_few(*(of_set.conflicts for of_set in repeats)),
    )


def _first_few(*rows: Sequence[RepeatedRow]) -> tuple[str, ...]:
    return tuple(map(str, islice(chain(*rows), _EXAMPLES_PER_REASON)))


def summarize(
    name: str,
    store: EncodedStore,
    key_segments: Sequence[str],
    test_prompts: Mapping[str, int],
    max_length_tokens: int,
    max_new_tokens: int,
) -> DataReport:
    """Build the report of a store.

    Args:
        name: name to display.
        store: the encoded data set.
        key_segments: names of the segments whose tokens are key tokens.
        test_prompts: hash of the prompt of every test example, by a unique name.
        max_length_tokens: maximum length of an example that was kept.
        max_new_tokens: maximum length of a response that evaluation generates.
    """
    counts, names = np.asarray(store.segment_counts), store.segment_names
    totals = counts.sum(axis=0, dtype=np.int64)
    response = counts.sum(axis=1) - counts[:, names.index("prompt")]
    key_tokens = int(sum(totals[names.index(segment)] for segment in key_segments))
    columns = {"all": counts.sum(axis=1)} | {segment: counts[:, i] for i, segment in enumerate(names)}
    rows = sum(source.rows for source in store.sources)
    not_drawn = sum(source.not_drawn for source in store.sources)
    kept = rows - not_drawn - len(store.refusals)
    repeats = store.repeats
    return DataReport(
        name=name,
        rows=rows,
        kept=kept,
        dropped=_dropped(store.refusals),
        special_tokens_in_prompts=store.special_tokens_in_prompts,
        left_out=store.left_out,
        digest=store.digest,
        sources=store.sources,
        not_drawn=not_drawn,
        examples=len(store),
        total_tokens=int(totals.sum()),
        key_share_of_response=key_tokens / max(1, int(response.sum())),
        lengths=tuple(_lengths(segment, column) for segment, column in columns.items() if column.any()),
        duplicates=kept - len(np.unique(store.hashes[:, 1])),
        conflicts=repeats.conflicting_prompts,
        repeated=_first_few(repeats.duplicates),
        conflicting=_first_few(repeats.conflicts),
        overlap=_overlap(store.hashes[:, 0], test_prompts),
        truncation=_truncation(store, columns["all"], response, max_length_tokens, max_new_tokens),
        loss_weights=LossWeights.of(store.loss_weights),
    )


def _dropped(refusals: Sequence[Refusal]) -> tuple[DroppedRows, ...]:
    return tuple(
        DroppedRows(reason, len(of), tuple(f"{row.id}: {row.detail}" for row in of[:_EXAMPLES_PER_REASON]))
        for reason, of in sorted(by_reason(refusals).items())
    )


def _lengths(segment: str, column: np.ndarray) -> LengthSummary:
    quantiles = {f"p{quantile:.0%}".rstrip("%"): int(np.quantile(column, quantile)) for quantile in _QUANTILES}
    return LengthSummary(segment, float(column.mean()), quantiles)


def _overlap(prompts: np.ndarray, test_prompts: Mapping[str, int]) -> tuple[str, ...]:
    trained = np.isin(np.array(list(test_prompts.values()), dtype=np.uint64), prompts)
    return tuple(test_id for test_id, found in zip(test_prompts, trained.tolist(), strict=True) if found)


def _truncation(
    store: EncodedStore, lengths: np.ndarray, response: np.ndarray, max_length_tokens: int, max_new_tokens: int
) -> Truncation:
    dropped = [refusal.num_tokens for refusal in store.refusals if refusal.num_tokens is not None]
    everything = np.concatenate([lengths, np.array(dropped, dtype=np.int64)])
    bounds = [max_length_tokens // 4, max_length_tokens // 2, max_length_tokens, 2 * max_length_tokens]
    return Truncation(
        max_length_tokens=max_length_tokens,
        dropped=len(dropped),
        longest=int(everything.max()),
        share_longer_than={bound: float((everything > bound).mean()) for bound in bounds},
        max_new_tokens=max_new_tokens,
        responses_beyond=float((response > max_new_tokens).mean()),
    )
