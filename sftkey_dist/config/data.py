"""The configuration of data: where rows come from, how a response is cut, how it is encoded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sftkey_dist.config.answer_check import AnswerCheck
from sftkey_dist.config.paths import LocalPath, Location
from sftkey_dist.config.section import MOST_ROWS, Section, Seed
from sftkey_dist.errors import ConfigError
from sftkey_dist.patterns import compile_pattern

Adapter = Literal[
    "gsm8k",
    "openbookqa",
    "openr1_math",
    "cot_collection",
    "records",
    "prompt_completion",
    "messages",
    "decision_memos",
]

_OWN_KEYS: dict[str, frozenset[str]] = {
    "records": frozenset({"prompt", "columns"}),
    "prompt_completion": frozenset({"prompt", "response", "rules"}),
    "messages": frozenset({"messages", "rules"}),
    "decision_memos": frozenset({"seed", "lists_points"}),
}
_KEYS_OF_SOME = frozenset({"prompt", "columns", "response", "messages", "rules", "lists_points"})


class RegexRule(Section):
    """A rule of your own: where a regular expression's named groups lie in a response."""

    name: str = "regex"
    """Name in reports."""
    regex: str
    """Must match the whole response; each named group is a segment, for example
    `(?P<reasoning>.+)\\nVerdict: (?P<answer>.+)`."""
    separators: str = r"\s*\S{0,20}\s*"
    """Regular expression for what may lie between the segments, so that nothing else can be lost there."""

    @model_validator(mode="after")
    def compiles_and_names_segments(self) -> Self:
        """A rule without named groups cuts nothing."""
        for pattern in (self.regex, self.separators):
            try:
                compile_pattern(pattern)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        if not compile_pattern(self.regex).groupindex:
            raise ValueError(f"regex {self.regex!r} needs a named group for each segment, such as (?P<answer>.+)")
        return self


RuleName = Literal["default", "hash_marks", "think", "boxed", "answer_is", "option_letter", "last_line"]
Rules = tuple[RuleName | RegexRule, ...]


class SourceConfig(Section):
    """Where examples come from."""

    adapter: Adapter
    """How a raw row becomes a prompt and named segments: a known data set, or `records` (a column per segment),
    `prompt_completion`, `messages`; `decision_memos` generates its rows."""
    name: str = ""
    """Name in tables; default: adapter and split."""
    path: Location | None = None
    """Local .jsonl, .json, .csv, .parquet or .arrow file (text also .gz, also a pattern with *), a folder of such
    files, or a data set id on the Hugging Face hub (not for `decision_memos`)."""
    subset: str | None = None
    """Configuration name on the hub, e.g. `main`."""
    split: str = "train"
    """Split on the hub, or of a folder whose files are named by theirs; for `decision_memos` the half of the generated
    cases."""
    revision: str | None = None
    """Revision on the hub."""
    limit: int | None = Field(None, ge=1, le=MOST_ROWS)
    """Use the first so many rows only; for `decision_memos` the number of rows to generate."""
    weight: float = Field(1.0, ge=1e-6, le=10_000)
    """Share of the rows that a mixture takes: 0.5 is a seeded half, 2 is every row twice."""
    seed: Seed = 0
    """Seed of the choice of rows by `weight`, and of the generator."""
    lists_points: bool = False
    """Answers list every fact's points before the decision: several times as long (`decision_memos`)."""
    prompt: str | None = None
    """Column of the prompt (default `prompt`), or a text with columns in braces, `{question}\\n{options}`
    (`records`, `prompt_completion`). Braces around what is no name stay, `{"grade": "A"}` or `\\frac{1}{2}`; doubled
    ones always do: `{{name}}` is written `{name}`."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column of each segment; a.b names a field of a field. Default: the column named as the segment, or that
    field of a column `segments` (`records`)."""
    response: str = "completion"
    """Column of the response (`prompt_completion`)."""
    messages: str = "messages"
    """Column of the messages; the last one must be the assistant's (`messages`)."""
    rules: Rules = ()
    """How a response is cut into segments, tried in order; without rules it must keep the contract
    (`prompt_completion`, `messages`)."""
    answer_check: AnswerCheck | None = None
    """How answers to this test set are compared with their references, where not as `evaluation.answer_check` says."""

    @model_validator(mode="after")
    def path_is_given_where_rows_are_read(self) -> Self:
        """Adapters that read need a path; the generator needs a number of rows."""
        if self.adapter == "decision_memos":
            if self.path is not None or self.limit is None:
                raise ValueError("adapter decision_memos generates its rows: give `limit`, not `path`")
        elif self.path is None:
            raise ValueError(f"adapter {self.adapter} reads rows: give `path` (a local file or a hub id)")
        return self

    @model_validator(mode="after")
    def keys_belong_to_the_adapter(self) -> Self:
        """A key that the adapter would not read is a mistake."""
        given = {key for key in self.model_fields_set & _KEYS_OF_SOME if getattr(self, key) != _default_of(key)}
        foreign = given - _OWN_KEYS.get(self.adapter, frozenset())
        if foreign:
            raise ValueError(f"adapter {self.adapter} does not use {', '.join(sorted(foreign))}")
        return self

    @property
    def data_set(self) -> str:
        """What it is called in tables."""
        return self.name or f"{self.adapter}/{self.split}"

    @property
    def place(self) -> str:
        """Where the rows are, for messages."""
        return self.path or f"{self.adapter}/{self.split}"

    @property
    def reading(self) -> dict[str, Any]:
        """What decides the examples; a name and a way to compare answers do not."""
        return self.model_dump(mode="json", exclude={"name", "answer_check"})


def _default_of(key: str) -> Any:
    return SourceConfig.model_fields[key].get_default(call_default_factory=True)


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, Mapping | SourceConfig) else value


Sources = Annotated[tuple[SourceConfig, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
"""One source, or a list of them: a mixture."""


class DataConfig(Section):
    """The data and how it is encoded."""

    train: Sources
    """Examples to train on: one source or a list."""
    test: Sources
    """Examples to generate for and score; never trained on."""
    max_length_tokens: int = Field(1024, ge=8, le=10_000_000)
    """Longest example in tokens, prompt and response; longer ones are dropped and counted, never cut."""
    max_bad_row_share: float = Field(0.01, ge=0, lt=1)
    """Share of malformed rows that is dropped and counted; above it preparation stops. 0 stops at the first one."""
    store_dir: LocalPath = Path("runs/store")
    """Folder of encoded data, shared by runs and reused by digest; shared storage on a cluster."""
    num_workers: int | None = Field(None, ge=1, le=4096)
    """Processes that encode on this machine; default: its cores. On a cluster Ray Data decides."""
    shard_rows: int = Field(16_384, ge=1, le=10_000_000)
    """Rows that are encoded, and kept, at a time: an interrupted preparation repeats no finished shard."""

    @model_validator(mode="after")
    def test_sets_are_told_apart(self) -> Self:
        """Scores are reported for each test set."""
        names = [source.data_set for source in self.test]
        if len(set(names)) < len(names):
            raise ValueError(f"data.test: give each source a `name` of its own; they are called {names}")
        return self

    @model_validator(mode="after")
    def test_is_not_the_training_data(self) -> Self:
        """A score on training rows says nothing."""
        for test in self.test:
            if any(_same_rows(test, train) for train in self.train):
                raise ValueError("data.test is the training data; give it another path or split")
        return self


def _same_rows(one: SourceConfig, other: SourceConfig) -> bool:
    place = {"adapter", "path", "subset", "split", "revision", "seed"}
    return one.model_dump(include=place) == other.model_dump(include=place)
