"""The configuration of data: where rows come from, how responses are segmented and how they are encoded."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sftkey_dist.config.answer_check import AnswerCheck
from sftkey_dist.config.paths import LocalPath, Location
from sftkey_dist.config.rules import Rules
from sftkey_dist.config.section import MAX_ROWS, Section, SectionWithNewerKeys, Seed
from sftkey_dist.data.data_sets import data_set_names
from sftkey_dist.data.memos import DecisionRule, ReasoningLength

if TYPE_CHECKING:
    Adapter = str
else:
    Adapter = Literal[(*data_set_names(), "records", "prompt_completion", "messages", "decision_memos")]

FILE_FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""Endings of the names of files that rows are read from."""
COMPRESSIONS = (".gz", ".zst")
"""Further endings of compressed text files."""

_OWN_KEYS: dict[str, frozenset[str]] = {
    "records": frozenset({"prompt", "columns"}),
    "prompt_completion": frozenset({"prompt", "response", "rules"}),
    "messages": frozenset({"messages", "columns", "roles", "rules", "trained_turns"}),
    "decision_memos": frozenset({"seed", "lists_points", "reasoning_length", "decision_rule"}),
}
_KEYS_OF_ROWS = frozenset({"labels", "loss_weight_column"})
"""Of every adapter that reads rows, in any layout."""
_NEWER_KEYS = frozenset({"trained_turns", "roles", "reasoning_length", "decision_rule"}) | _KEYS_OF_ROWS
_KEYS_OF_SOME = frozenset({"prompt", "columns", "response", "messages", "rules", "lists_points"}) | _NEWER_KEYS

Role = Literal["system", "user", "assistant", "tool"]


class SourceConfig(Section):
    """A source of examples."""

    adapter: Adapter
    """How a raw row is turned into a prompt and named segments: the adapter of a known data set, or one for a layout:
    `records` (one column per segment), `prompt_completion` or `messages`. `decision_memos` generates its rows."""
    name: str = ""
    """Name used in tables; default: the name of the file for rows of your own, otherwise adapter and split."""
    path: Location | None = None
    """A local .jsonl, .json, .csv, .tsv, .parquet or .arrow file (text files may be compressed, .gz or .zst), a pattern
    with * or, for folders at any depth, with **, a folder of such files, or a data set id on the Hugging Face hub. Not
    for `decision_memos`."""
    subset: str | None = None
    """Configuration name on the hub, e.g. `main`."""
    split: str = "train"
    """Split on the hub, or in a folder whose files are named after their splits. For `decision_memos`, which half of
    the generated cases to use."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    limit: int | None = Field(None, ge=1, le=MAX_ROWS)
    """Maximum number of rows, from the first one on. For `decision_memos`, the number of rows to generate."""
    weight: float = Field(1.0, ge=1e-6, le=10_000)
    """How often a mixture uses each row: 0.5 selects half of the rows by `seed`, 2 uses every row twice."""
    seed: Seed = 0
    """Seed for selecting rows by `weight`, and for the generator."""
    lists_points: bool = False
    """For `decision_memos`: answers also list the points of every fact before the decision, which makes them several
    times as long."""
    reasoning_length: ReasoningLength = "standard"
    """For `decision_memos`: `brief` names the four facts, `standard` discusses them, and `long` adds six remarks that
    say nothing about the case to each of them. The cases and their decisions are the same."""
    decision_rule: DecisionRule = "points_and_veto"
    """For `decision_memos`: what the decision follows from. `one_fact`: the payments alone. `points`: the points of all
    four facts. `points_and_veto`: these, and an unsecured loan after a default is always rejected."""
    prompt: str | None = None
    """For `records` and `prompt_completion`: column of the prompt (default `prompt`), or a template with columns in
    braces, `{question}\\n{options}`. Braces around anything that is not a name are kept, as in `{"grade": "A"}` or
    `\\frac{1}{2}`. Doubled braces are an escape: `{{name}}` is written as `{name}`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """For `records`: column of each segment, as `{segment: column}`, for example `{reasoning: Agent notes}`; `a.b` is
    the field b inside the column a. Default: the column with the segment's name, or that field of a column
    `segments`. For `messages`: names of the fields of a message, as `{role: speaker, content: text}`."""
    response: str = "completion"
    """For `prompt_completion`: column of the response."""
    messages: str = "messages"
    """For `messages`: column of the messages, in OpenAI's format (`role`, `content`, `tool_calls`) or in ShareGPT's
    (`from`, `value`). Default: `messages` or, in rows without it, `conversations`."""
    roles: dict[str, Role] = Field(default_factory=dict)
    """For `messages`: what the data call each role, for example `{Customer: user, Agent: assistant}`."""
    trained_turns: Literal["last", "all"] = "last"
    """For `messages`: which responses of a conversation are examples. `last`: its last message, which must be the
    assistant's. `all`: every message of the assistant after the first one of the user, except those with `weight: 0` or
    `train: false`; each is an example whose prompt is the conversation before it."""
    rules: Rules = ()
    """For `prompt_completion` and `messages`: rules that cut a response into segments, tried in order. Without rules,
    the response must already follow the contract."""
    labels: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Spellings of the values of a segment, as `{segment: {spelling: label}}`, for example
    `{decision: {approved: approve, Denied: reject}}`. A segment whose whole text, without white space around it, is the
    spelling becomes the label; any other text stays as it is. Capitals matter only where spellings that differ in
    nothing else have different labels, and where the text is a label itself. Not for `decision_memos`."""
    loss_weight_column: str = ""
    """For training sources: column of a number up to 1,000,000 by which the loss of all tokens of a row is
    multiplied, for example a rating of its quality; default: none. Rows with 0 are not trained. The loss stays a mean:
    it is divided by the sum of all weights. Not for `decision_memos`."""
    answer_check: AnswerCheck | None = None
    """For test sources: how answers are compared with their references; overrides `evaluation.answer_check`."""

    @model_validator(mode="after")
    def path_is_given_where_rows_are_read(self) -> Self:
        """Adapters that read rows need a path, and the generator needs a number of rows."""
        if self.adapter == "decision_memos":
            if self.path is not None or self.limit is None:
                raise ValueError("adapter decision_memos generates its rows: give `limit`, not `path`")
        elif self.path is None:
            raise ValueError(f"adapter {self.adapter} reads rows: give `path` (a local file or a hub id)")
        return self

    @model_validator(mode="after")
    def keys_belong_to_the_adapter(self) -> Self:
        """A key that the adapter would ignore is an error."""
        given = {key for key in self.model_fields_set & _KEYS_OF_SOME if not self.has_default(key)}
        of_rows = frozenset() if self.adapter == "decision_memos" else _KEYS_OF_ROWS
        foreign = given - _OWN_KEYS.get(self.adapter, frozenset()) - of_rows
        if foreign:
            raise ValueError(f"adapter {self.adapter} does not use {', '.join(sorted(foreign))}")
        return self

    @property
    def data_set(self) -> str:
        """Its name in tables: by default that of its file, or otherwise the adapter and the split."""
        file = uncompressed_name(self.path or "")
        is_own_file = (
            self.adapter not in data_set_names() and file.suffix.lower() in FILE_FORMATS and "*" not in file.name
        )
        return self.name or (file.stem if is_own_file else f"{self.adapter}/{self.split}")

    @property
    def place(self) -> str:
        """Location of the rows, for messages."""
        return self.path or f"{self.adapter}/{self.split}"

    @property
    def reading(self) -> dict[str, object]:
        """The keys that determine the examples: all except the name and the way to compare answers.

        A newer key is left out where it is not set, so that digests equal those from before the key existed.
        """
        unset = {key for key in _NEWER_KEYS if self.has_default(key)}
        return self.model_dump(mode="json", exclude={"name", "answer_check", *unset})


def uncompressed_name(path: str) -> PurePath:
    """The path without the ending of a compression."""
    file = PurePath(path)
    return file.with_suffix("") if file.suffix.lower() in COMPRESSIONS else file


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, Mapping | SourceConfig) else value


Sources = Annotated[tuple[SourceConfig, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
"""One source, or a list of sources (a mixture)."""
SourcesOrNone = Annotated[tuple[SourceConfig, ...], BeforeValidator(_one_or_more)]
"""Sources, or an empty list."""


class SplitConfig(Section):
    """A test set that is held out from the training sources."""

    test: float = Field(ge=1e-6, le=0.5)
    """Share of the prompts of each training source that are tested and never trained on. All rows with the same prompt
    are on the same side."""
    seed: Seed = 0
    """Seed of the choice. The side of a prompt depends on the seed and on the prompt's text alone, ignoring system
    messages, case and spacing: other rows, their order, shards and workers change nothing."""


class SplitSource(SourceConfig):
    """One side of a training source that is split. Users do not write it."""

    is_test: bool
    """Whether it has the rows that are tested, or the others."""
    test_share: float
    """Share of the prompts that are tested."""
    split_seed: Seed
    """Seed of the choice."""

    @property
    def data_set(self) -> str:
        """Its name in tables, which says that it is a part of its file."""
        return f"test of {super().data_set}" if self.is_test else super().data_set


class DataConfig(SectionWithNewerKeys):
    """The data and how it is encoded."""

    newer_keys = frozenset({"drop_duplicates", "split"})

    train: Sources
    """Examples to train on: one source, or a list of sources."""
    test: SourcesOrNone = ()
    """Examples to generate for and to score. They are never trained on. Required unless `data.split` is given."""
    split: SplitConfig | None = None
    """Holds a test set out of `data.train`, in place of `data.test`; each training source becomes a test set too."""
    max_length_tokens: int = Field(1024, ge=8, le=10_000_000)
    """Maximum length of an example, prompt and response together. Longer examples are dropped and counted, never
    truncated."""
    max_bad_row_share: float = Field(0.01, ge=0, lt=1)
    """Maximum share of malformed rows, which are dropped and counted: of all rows of `data.train`, with those that
    `data.split` holds out, and of all rows of `data.test`. Above it preparation stops; with 0 it stops at the first
    malformed row."""
    drop_overlap: bool = False
    """Whether training rows whose prompt is also in a test set, ignoring system messages, case and spacing, are dropped
    and counted as `in_test`. Otherwise the report only names them. Of a conversation that is read as several examples
    the last prompt decides, for all of them."""
    drop_duplicates: bool = False
    """Whether training rows whose prompt, ignoring case and spacing, and whose response are those of an earlier row are
    dropped and counted as `duplicate`. The first row is kept, in the order of the sources and of the rows in them.
    Rows with the same prompt and different responses are kept. A test set that `data.split` holds out loses such rows
    of a source too; a test set of its own (`data.test`) does not."""
    store_dir: LocalPath = Path("runs/store")
    """Folder of the encoded data. Runs share it and reuse data with the same digest. On a cluster it must lie on shared
    storage."""
    num_workers: int | None = Field(None, ge=1, le=4096)
    """Number of processes that encode on this machine; default: one per core. On a cluster Ray Data decides."""
    shard_rows: int = Field(16_384, ge=1, le=10_000_000)
    """Number of rows that are encoded and saved at a time. An interrupted preparation does not repeat finished
    shards."""

    @property
    def names_of_training_sources(self) -> list[str]:
        """A name for each source in `train`, all different, also where two sources read the same rows."""
        return [f"{number} {source.data_set}" for number, source in enumerate(self.train, start=1)]

    @property
    def train_sources(self) -> tuple[SourceConfig, ...]:
        """What is trained on: the training sources, without what is held out from them as a test set."""
        return self._side(self.split, is_test=False) if self.split else self.train

    @property
    def test_sources(self) -> tuple[SourceConfig, ...]:
        """What is tested: the test sources, or what is held out from the training sources."""
        return self._side(self.split, is_test=True) if self.split else self.test

    def _side(self, split: SplitConfig, *, is_test: bool) -> tuple[SourceConfig, ...]:
        side: dict[str, Any] = {"is_test": is_test, "test_share": split.test, "split_seed": split.seed}
        side |= {"weight": 1.0} if is_test else {}  # a weight of the mixture would leave tested rows out
        return tuple(
            SplitSource.model_construct(source.model_fields_set | set(side), **(vars(source) | side))
            for source in self.train
        )

    @model_validator(mode="after")
    def there_is_one_kind_of_test_set(self) -> Self:
        """Test rows come from sources of their own, or from the training sources."""
        if self.split is None and not self.test:
            raise ValueError(
                "data.test is missing: give a test set, or hold one out of data.train with data.split={test: 0.1}"
            )
        if self.split is not None and self.test:
            raise ValueError("data.split holds a test set out of data.train, and data.test gives another; remove one")
        return self

    @model_validator(mode="after")
    def test_sets_are_told_apart(self) -> Self:
        """Scores are reported per test set, so each one needs its own name."""
        names = [source.data_set for source in self.test_sources]
        if len(set(names)) < len(names):
            key = "data.train (with data.split)" if self.split else "data.test"
            raise ValueError(f"{key}: give each source its own `name`; now they are named {names}")
        return self

    @model_validator(mode="after")
    def test_rows_have_no_loss(self) -> Self:
        """Scores count every question once."""
        if any(source.loss_weight_column for source in self.test):
            raise ValueError("data.test: loss_weight_column is for training sources; remove it")
        return self

    @model_validator(mode="after")
    def test_is_not_the_training_data(self) -> Self:
        """A score on training rows would be meaningless."""
        for test in self.test:
            if any(_same_rows(test, train) for train in self.train):
                raise ValueError("data.test is the training data; give it another path or split")
        return self


def _same_rows(one: SourceConfig, other: SourceConfig) -> bool:
    place = {"adapter", "path", "subset", "split", "revision", "seed"}
    return one.model_dump(include=place) == other.model_dump(include=place)
