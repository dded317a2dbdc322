"""The interface of all generation backends: decoding settings in, generations out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sftkey_dist.config.evaluation import EvaluationConfig
from sftkey_dist.contract import Form, ResponseContract
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.generation.guide import Guide


@dataclass(frozen=True)
class Decoding:
    """How responses are decoded and where they end.

    Attributes:
        max_new_tokens: maximum length of a response.
        num_samples: number of responses per prompt.
        temperature: sampling temperature; 0 is greedy.
        top_p: probability mass of nucleus sampling.
        seed: seed of sampling.
        closing_tag: text that ends a response in addition to the end-of-turn token; "" for none.
        guide: what constrains a response to the format of its contract; None if nothing does.
    """

    max_new_tokens: int
    num_samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    closing_tag: str = ""
    guide: Guide | None = None

    @classmethod
    def of(cls, settings: EvaluationConfig, contract: ResponseContract, form: Form, seed: int = 0) -> "Decoding":
        """The decoding that a configuration asks for."""
        has_tags = form is Form.TAGGED and contract.container == "tags"
        closes = settings.stop_at == "closing_tag" and has_tags
        return cls(
            max_new_tokens=settings.max_new_tokens,
            num_samples=settings.sampling.num_samples,
            temperature=settings.sampling.temperature,
            top_p=settings.sampling.top_p,
            seed=seed,
            closing_tag=contract.segments[-1].closing if closes else "",
            guide=Guide(contract, form) if settings.guided else None,
        )

    @property
    def inputs(self) -> dict[str, object]:
        """What a generation depends on, as plain values. Without a guide they equal those from before it existed."""
        own = {key: value for key, value in vars(self).items() if key != "guide"}
        return own | ({"guide": self.guide.inputs} if self.guide else {})


@dataclass(frozen=True)
class Generation:
    """An output without its end-of-turn token. It is ``truncated`` if that token was not generated."""

    text: str
    num_tokens: int
    truncated: bool


@dataclass(frozen=True)
class NoResponse:
    """The reason why a server gave no response after the last attempt."""

    reason: str


class Generator(Protocol):
    """A generation backend."""

    def generate(self, examples: Sequence[Example], decoding: Decoding) -> Sequence[list[Generation] | NoResponse]:
        """Generate ``decoding.num_samples`` responses to each example, in order."""
        ...


def read_generation(tokenizer: Any, ids: Sequence[int], end_of_turn_id: int, decoding: Decoding) -> Generation:
    """The generation of new token ids, without the padding after its end."""
    ids = list(ids)
    ended = end_of_turn_id in ids
    if ended:
        ids = ids[: ids.index(end_of_turn_id)]
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if decoding.closing_tag and decoding.closing_tag in text:
        text, ended = text[: text.index(decoding.closing_tag) + len(decoding.closing_tag)], True
        ids = ids[: _num_tokens_of(tokenizer, ids, decoding.closing_tag)]
    return Generation(text, len(ids), not ended)


def _num_tokens_of(tokenizer: Any, ids: Sequence[int], closing_tag: str) -> int:
    """Length of the shortest prefix whose text contains the closing tag, found by binary search."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if closing_tag in tokenizer.decode(ids[:middle], clean_up_tokenization_spaces=False):
            high = middle
        else:
            low = middle + 1
    return low
