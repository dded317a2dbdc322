"""What training and evaluation start from."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sftkey_dist.contract import Form
from sftkey_dist.data.example import Example
from sftkey_dist.run_dir import RunDir
from sftkey_dist.strategy import Strategy

if TYPE_CHECKING:  # loads datasets, and planning a run reads two arrays of it
    from sftkey_dist.data.report import DataReport, SourceReport
    from sftkey_dist.data.store import EncodedStore


@dataclass(frozen=True)
class Preparation:
    """What `prepare` has found and written.

    Attributes:
        run: the run directory.
        strategies: of the run.
        model_dir: the base model that all of them start from.
        model_digest: of its files.
        test: all test examples.
        stores: encoded training data, one store for each form of the response.
        reports: on the stores.
        test_report: on the test data.
        date: what the chat template prints, where it prints the date.
        end_of_turn_id: token that ends a response.
    """

    run: RunDir
    strategies: tuple[Strategy, ...]
    model_dir: Path
    model_digest: str
    test: Sequence[Example]
    stores: "Mapping[Form, EncodedStore]"
    reports: "Sequence[DataReport]"
    test_report: "SourceReport"
    date: datetime.date | None
    end_of_turn_id: int
