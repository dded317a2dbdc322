"""A persistent cache of rulings. No question is asked twice, in this run or in another run that shares the folder."""

import socket
from pathlib import Path

from sftkey_dist.digests import digest_json
from sftkey_dist.evaluation.judge.reading import Ruling
from sftkey_dist.evaluation.judge.template import Question
from sftkey_dist.run_dir.artifacts.evaluation import RULINGS, RulingRecord


class JudgeMemory:
    """Rulings by (judge, template, question, reference, answer). Each run appends to its own journal."""

    def __init__(self, folder: Path, owner: Path) -> None:
        """
        Args:
            folder: folder of the journals, which runs may share.
            owner: the run directory, which determines the journal that this run writes to.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = folder / f"rulings-{digest_json([socket.gethostname(), str(owner)])[:12]}.jsonl"
        if self._journal.exists():
            RULINGS.keep(self._journal)  # cuts off what a killed run did not finish writing
        records = [record for file in sorted(folder.glob("rulings-*.jsonl")) for record in RULINGS.read(file)]
        self._rulings = {record.key: Ruling(record.value, record.reason) for record in records}

    def get(self, key: str) -> Ruling | None:
        """The cached ruling, or None."""
        return self._rulings.get(key)

    def put(self, key: str, ruling: Ruling) -> None:
        """Cache a ruling, and write it to disk at once."""
        self._rulings[key] = ruling
        RULINGS.append(self._journal, [RulingRecord(key, ruling.value, ruling.reason)])


def ruling_key(judge: str, template_digest: str, question: Question) -> str:
    """Digest of everything that a ruling depends on. The question includes the conversation."""
    return digest_json([judge, template_digest, question.question, question.reference, question.answer])
