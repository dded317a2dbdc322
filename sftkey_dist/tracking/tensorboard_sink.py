"""Writes event files for TensorBoard, through tensorboardX, which Ray Train needs in any case."""

import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from sftkey_dist.digests import digest_json
from sftkey_dist.files import make_folder
from sftkey_dist.tracking.sink import Known, SinkRun
from sftkey_dist.tracking.tracker import RunStatus

_LENGTH = struct.Struct("<Q4x")
"""Before each event: its length in bytes, and a checksum of the length."""
_CHECKSUM_BYTES = 4


class TensorBoardSink:
    """A folder for each run, below the folder of its strategy. The event files say what the run has."""

    title = "TensorBoard"
    remedy = "`sftkey track sync RUN` writes what is missing"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, EventsWriter] = {}

    def known(self, key: str) -> Known:
        """See Sink. A run that has anything is finished, because scores are written at once."""
        known = Known()
        for file in sorted(path for folder in self._folders(key) for path in folder.glob("events*")):
            for event in _events(file):
                for value in event.summary.value:
                    known.next_steps[value.tag] = max(event.step + 1, known.next_steps.get(value.tag, 0))
                    known.summary[value.tag] = value.simple_value
        known.is_finished = bool(known.next_steps)
        return known

    def write(self, run: SinkRun, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """See Sink."""
        writer = self._writer(run)
        for step, values in rows:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
            writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        writer.flush()

    def write_summary(self, run: SinkRun, values: Mapping[str, float]) -> None:
        """See Sink. They are at step 0."""
        self.write(run, [(0, values)])

    def end(self, run: SinkRun, status: RunStatus) -> None:
        """See Sink."""
        if writer := self._writers.pop(run.key, None):
            writer.close()

    def _writer(self, run: SinkRun) -> EventsWriter:
        if run.key not in self._writers:
            name = f"{run.name.replace(' ', '-')}-{_digest(run.key)}"
            folder = next(self._folders(run.key), self._folder / run.strategy / name)
            make_folder(folder)
            # Without a suffix, a file that is opened within the same second would overwrite the one before.
            self._writers[run.key] = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        return self._writers[run.key]

    def _folders(self, key: str) -> Iterator[Path]:
        """The folder of a run, if there is one. It is found by the run's key alone."""
        return iter(sorted(self._folder.glob(f"*/*-{_digest(key)}")))


def _digest(key: str) -> str:
    return digest_json(key)[:12]


def _events(file: Path) -> Iterator[Event]:
    """The events of a file, up to one that was being written when its process ended."""
    with file.open("rb") as stream:
        while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            content = stream.read(length + _CHECKSUM_BYTES)
            if len(content) < length + _CHECKSUM_BYTES:
                return
            yield Event.FromString(content[:-_CHECKSUM_BYTES])
