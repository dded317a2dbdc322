"""The review file: unsure rows, for a person to segment. The next run of the same command reads it again.

``{"place": "in.jsonl:17", "why": "no_rule: …", "response": "…", "accept": false, "segments": {"reasoning": "",
"answer": ""}, "outside": [], "candidates": [{"rule": "boxed", "answer": "42"}]}``. The reviewer fills in
``segments`` with texts copied from the response, lists texts that belong to no segment under ``outside``, and sets
``accept`` to true. The candidates are the answers that rules found; they are not read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.contract import ResponseContract
from sftkey_dist.data.example import Refusal
from sftkey_dist.data.rows.shards import find_shards, read_shard
from sftkey_dist.data.segmenting.cut import Cut, NotCut
from sftkey_dist.data.segmenting.verify import why_refused
from sftkey_dist.errors import DataError

REVIEW = "review"

_ROWS_AT_A_TIME = 4096
_KINDS: Mapping[str, type] = {"place": str, "response": str, "accept": bool, "segments": dict, "outside": list}


@dataclass(frozen=True)
class Review:
    """A line of the review file."""

    place: str
    why: str
    response: str
    accept: bool
    segments: Mapping[str, str]
    outside: tuple[str, ...] = ()
    candidates: tuple[Mapping[str, str], ...] = ()

    def cut(self, contract: ResponseContract) -> Cut | NotCut | None:
        """The reviewer's decision, verified; None if there is no decision yet."""
        if not self.accept:
            return None
        values = {name: text for name, text in self.segments.items() if text}
        problem = why_refused(values, self.response, contract, self.outside)
        return NotCut("review_not_verified", problem) if problem else Cut(values, REVIEW)

    def to_json(self) -> dict[str, object]:
        """Plain values for a file."""
        return vars(self) | {"segments": dict(self.segments), "outside": list(self.outside)}


def read_reviews(path: Path) -> dict[str, Review]:
    """Read a review file and return its lines by response; empty if there is no file.

    Raises:
        DataError: A line is not a valid review.
    """
    if not path.is_file():
        return {}
    return {review.response: review for review in _reviews(path)}


def _reviews(path: Path) -> Iterator[Review]:
    source = SourceConfig(adapter="records", path=str(path))
    for shard in find_shards(source, _ROWS_AT_A_TIME):
        for place, row in read_shard(source, shard):
            if isinstance(row, Refusal):
                raise DataError(f"{place}: {row.detail}")
            for name, kind in _KINDS.items():
                if not isinstance(row.get(name), kind):
                    raise DataError(f"{place}: field {name!r} must be {_ARTICLES[kind]}, as in the other lines")
            fields: dict[str, Any] = {name: row[name] for name in _KINDS}
            if not all(isinstance(text, str) for text in (*fields["segments"].values(), *fields["outside"])):
                raise DataError(f"{place}: segments and outside must contain texts only")
            fields["why"] = str(row.get("why", ""))
            found = row.get("candidates")
            candidates = tuple(found) if isinstance(found, list) else ()
            yield Review(**fields | {"outside": tuple(fields["outside"]), "candidates": candidates})


_ARTICLES = {str: "a text", bool: "true or false", dict: "an object", list: "a list"}
