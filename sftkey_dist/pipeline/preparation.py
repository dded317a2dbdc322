"""The prepared inputs of training and evaluation."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sftkey_dist.contract import Form
from sftkey_dist.data.example import Example, Refusal
from sftkey_dist.run_dir import RunDir
from sftkey_dist.strategy import Strategy

if TYPE_CHECKING:  # loads datasets, and planning a run reads two arrays of it
    from sftkey_dist.data.report import DataReport, SourceReport
    from sftkey_dist.data.store import EncodedStore


@dataclass(frozen=True)
class Preparation:
    """The result of `prepare`.

    Attributes:
        run: the run directory.
        strategies: strategies of the run.
        model_dir: folder of the base model from which all strategies start.
        model_digest: digest of its files.
        test: all test examples.
        stores: encoded training data, one store for each form of the response.
        reports: reports on the stores.
        test_report: report on the test data.
        test_refusals: rows of the test data that were dropped.
        answer_checks: a line that says how answers to the test data are compared with their references.
        date: the date that the chat template prints; None if it prints none.
        end_of_turn_id: id of the token that ends a response.
    """

    run: RunDir
    strategies: tuple[Strategy, ...]
    model_dir: Path
    model_digest: str
    test: Sequence[Example]
    stores: "Mapping[Form, EncodedStore]"
    reports: "Sequence[DataReport]"
    test_report: "SourceReport"
    test_refusals: Sequence[Refusal]
    answer_checks: str
    date: datetime.date | None
    end_of_turn_id: int
