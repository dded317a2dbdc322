"""Judges and encodes the responses that were sampled for a stage, row by row in the order of the references' store."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Literal

from sftkey_dist.data.building.parts import Part, PartSummary
from sftkey_dist.data.encoding.encode import EncodedExample, ExampleEncoder
from sftkey_dist.data.example import Refusal
from sftkey_dist.data.store import EncodedStore
from sftkey_dist.data.stored_rows import StoredRow, encoded_row
from sftkey_dist.evaluation.acceptance import ACCEPTED, judge_samples
from sftkey_dist.evaluation.batches import in_batches
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.generation.fan_out import Key
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.report.numbers import counted
from sftkey_dist.run_dir.artifacts.training import SampledRow, SampleYield

NO_ACCEPTED_RESPONSE = "no_accepted_response"
"""Reason of the refusal of a row that is left out."""
_BATCH_SIZE = 512


@dataclass(frozen=True)
class Outcome:
    """What becomes of a row.

    Attributes:
        row: the row.
        sampled: what became of its samples; None for a held-out row.
        example: what is encoded; None if the row is left out.
    """

    row: StoredRow
    sampled: SampledRow | None
    example: EncodedExample | None

    @property
    def refusals(self) -> list[Refusal]:
        """Why the row is left out, if it is."""
        if self.example is not None or self.sampled is None:
            return []
        return [Refusal(self.row.example.id, NO_ACCEPTED_RESPONSE, counted(Counter(self.sampled.outcomes)))]


@dataclass(frozen=True)
class Judging:
    """How the samples of rows become training data.

    Attributes:
        settings: how they are judged.
        encoder: encodes the accepted ones.
        references: store of the references.
        otherwise: what becomes of a row without an accepted response.
    """

    settings: EvaluationSettings
    encoder: ExampleEncoder
    references: EncodedStore
    otherwise: Literal["reference", "skip"]

    def outcomes(self, rows: Sequence[StoredRow], generations: Mapping[Key, Sequence[Generation]]) -> Iterator[Outcome]:
        """The outcome of each row, in order. Rows without generations are held out, and keep their references."""
        for batch in in_batches(rows, _BATCH_SIZE):
            samples = [generations.get((row.example.data_set, row.example.id), ()) for row in batch]
            asked = [(row.example, of_row) for row, of_row in zip(batch, samples, strict=True) if of_row]
            judged = judge_samples(asked, self.settings, self.encoder)
            for row, of_row in zip(batch, samples, strict=True):
                if not of_row:
                    yield Outcome(row, None, encoded_row(self.references, row))
                    continue
                found = next(judged)
                trained = None if found.chosen is None else found.outcomes.index(ACCEPTED)
                falls_back = found.chosen is None and self.otherwise == "reference"
                tokens = sum(sample.num_tokens for sample in of_row)
                yield Outcome(
                    row,
                    SampledRow(row.example.data_set, row.example.id, found.outcomes, trained, tokens),
                    encoded_row(self.references, row) if falls_back else found.chosen,
                )

    def write(
        self, part: Part, rows: Sequence[StoredRow], generations: Mapping[Key, Sequence[Generation]]
    ) -> Iterator[SampledRow]:
        """Write the rows of a source as a part of a store, and yield what became of the samples of each.

        Hashes are those of the references: they decide what is held out.
        """
        refusals: list[Refusal] = []
        with part.writing() as writer:
            for outcome in self.outcomes(rows, generations):
                refusals += outcome.refusals
                if outcome.example is not None:
                    hashes = [tuple(map(int, self.references.hashes[index])) for index in outcome.row.indices]
                    writer.add(list(repeat(outcome.example, len(hashes))), hashes)
                if outcome.sampled is not None:
                    yield outcome.sampled
        part.finish(writer, PartSummary(len(rows), 0, writer.num_examples, tuple(refusals)))


def yield_of(sampled: Sequence[SampledRow], otherwise: str) -> SampleYield:
    """How many samples of some rows are accepted."""
    by_outcome = Counter(chain.from_iterable(row.outcomes for row in sampled))
    return SampleYield(
        rows=len(sampled),
        accepted_rows=sum(row.trained is not None for row in sampled),
        otherwise=otherwise,
        samples=by_outcome.total(),
        outcomes=dict(sorted(by_outcome.items())),
        tokens=sum(row.tokens for row in sampled),
    )
