"""Examples in colour: the segment of each token, and the tokens that each stage trains."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_STYLES = ("dim", "yellow", "cyan", "magenta", "green", "blue", "red")


def colour_segments(
    tokenizer: "PreTrainedTokenizerBase", input_ids: np.ndarray, segment_ids: np.ndarray, segment_names: Sequence[str]
) -> Text:
    """The example's text with every segment in its own colour and a legend in front."""
    text = Text()
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
) -> Text:
    """The same text with the tokens that carry loss in a stage underlined, and their number."""
    carries_loss = np.asarray(weights)[segment_ids] > 0
    text = Text(f"{stage}: {int(carries_loss.sum())} of {len(input_ids)} tokens carry loss\n", style="bold")
    for start, end in _runs(carries_loss):
        piece = tokenizer.decode(input_ids[start:end].tolist(), clean_up_tokenization_spaces=False)
        text.append(piece, style="underline bold" if carries_loss[start] else "dim")
    return text


def _style(segment: int) -> str:
    return _STYLES[segment % len(_STYLES)]


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    """Start and end of each run of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return list(pairwise(edges))
