"""Examples in colour: the segment of each token, and the tokens that each stage trains."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from sftkey_dist.strategy import Strategy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAINED_LEGEND = (
    "[[ ]]: these tokens carry loss in the stage, and are bold and underlined where a terminal can show it; 2* before "
    "them: their weight, which stands there unless all weigh 1; everything else is context"
)
"""What the marks of `mark_trained` mean."""
_STYLES = ("dim", "yellow", "cyan", "magenta", "green", "blue", "red")


def colour_segments(
    tokenizer: "PreTrainedTokenizerBase",
    input_ids: np.ndarray,
    segment_ids: np.ndarray,
    segment_names: Sequence[str],
    *,
    has_colours: bool = True,
) -> Text:
    """The example's text with every segment in its own colour and a legend in front.

    Without colours, every segment begins on a line of its own, after its name.
    """
    text = Text()
    if not has_colours:
        for start, end in _runs(segment_ids):
            piece = tokenizer.decode(input_ids[start:end].tolist(), clean_up_tokenization_spaces=False)
            text.append(f"{segment_names[int(segment_ids[start])]}: {piece}\n")
        text.rstrip()
        return text
    for segment in dict.fromkeys(segment_ids.tolist()):
        text.append(f" {segment_names[segment]} ", style=f"reverse {_style(segment)}")
        text.append(" ")
    text.append("\n")
    for start, end in _runs(segment_ids):
        piece = tokenizer.decode(input_ids[start:end].tolist(), clean_up_tokenization_spaces=False)
        text.append(piece, style=_style(int(segment_ids[start])))
    return text


def mark_trained(
    tokenizer: "PreTrainedTokenizerBase",
    input_ids: np.ndarray,
    segment_ids: np.ndarray,
    weights: Sequence[float],
    stage: str,
    example_weight: float = 1.0,
) -> Text:
    """The same text with the tokens that carry loss in a stage underlined and in double brackets, and their number.

    Where they do not all weigh 1, the weight of its tokens stands before every part of the text.
    """
    of_tokens = np.asarray(weights)[segment_ids] * example_weight
    of_tokens[0] = 0  # nothing predicts it
    trained = of_tokens > 0
    shows_weights = bool((of_tokens[trained] != 1).any())
    text = Text(f"{stage}: {int(trained.sum())} of {len(input_ids)} tokens carry loss\n", style="bold")
    for start, end in _runs(of_tokens):
        piece = tokenizer.decode(input_ids[start:end].tolist(), clean_up_tokenization_spaces=False)
        if not trained[start]:
            text.append(piece, style="dim")
            continue
        if shows_weights:
            text.append(f"{of_tokens[start]:g}*", style="reverse")
        text.append("[[", style="dim").append(piece, style="underline bold").append("]]", style="dim")
    return text


def stage_weights(strategy: Strategy) -> Iterator[tuple[str, tuple[float, ...]]]:
    """The loss weights of each stage by segment id with its name, and those of its replayed steps."""
    for stage in strategy.stages:
        yield f"stage {stage.name}", stage.weights
        if stage.replay is not None:
            yield f"stage {stage.name}, one step of {stage.replay.every}", stage.replay.weights


def _style(segment: int) -> str:
    return _STYLES[segment % len(_STYLES)]


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of each run of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return list(pairwise(edges))
