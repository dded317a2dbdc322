"""The files that segmenting writes, and what must not happen to files that are there already."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.data.rows.files import local_files
from sftkey_dist.data.segmenting.review import Review, read_reviews
from sftkey_dist.errors import ConfigError, DataError


@dataclass(frozen=True)
class SegmentFiles:
    """The files that segmenting writes."""

    out: Path

    @property
    def report(self) -> Path:
        """Coverage by rule, failures by reason, samples."""
        return self.out.with_name(f"{self.out.name}.report.json")

    @property
    def review(self) -> Path:
        """The unsure rows, for a person to review."""
        return self.out.with_name(f"{self.out.name}.review.jsonl")

    @property
    def replies(self) -> Path:
        """The model's replies so far."""
        return self.out.with_name(f"{self.out.name}.replies.jsonl")

    @property
    def all(self) -> tuple[Path, ...]:
        """All of them."""
        return self.out, self.report, self.review, self.replies


def refuse_own_output(source: SourceConfig, files: SegmentFiles) -> None:
    """Rows must not come from a file that is about to be replaced.

    Raises:
        ConfigError: A file of the source would be replaced.
    """
    written = {path.resolve() for path in files.all}
    for path in local_files(source):
        if Path(path).resolve() in written:
            raise ConfigError(
                f"{path}: this input file would be overwritten by this command; give OUT another name (a review file "
                f"is read automatically when the same command is run again)"
            )


def require_files(files: SegmentFiles) -> None:
    """Check before hours of work that no folder has the name of a file that will be written, and that OUT is named as
    the JSON Lines that it will contain.

    Raises:
        ConfigError: A folder has such a name, or OUT does not end in .jsonl.
    """
    for path in files.all:
        if path.is_dir():
            raise ConfigError(f"{path}: a folder; give OUT the name of a file")
    if files.out.suffix.lower() != ".jsonl":
        raise ConfigError(
            f"{files.out}: the rows are written as JSON Lines; give OUT a name that ends in .jsonl, such as "
            f"{files.out.name.partition('.')[0]}.jsonl"
        )


def refuse_changed_reviews(file: Path, read: Mapping[str, Review]) -> None:
    """A person may have reviewed rows since the file was read, which may be hours ago if a model is asked.

    Raises:
        DataError: The file would lose that work. Nothing is written, and the model's replies are kept.
    """
    if read_reviews(file) != read:
        raise DataError(
            f"{file}: was changed while this command ran; nothing was written over it. Run the command again, which "
            "uses the reviews and asks the model nothing twice"
        )


@contextmanager
def write_errors_as_data_errors(out: Path) -> Iterator[None]:
    """
    Raises:
        DataError: A file cannot be written in the block.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{out}: cannot be written: {error.strerror or error}; choose another OUT") from error
