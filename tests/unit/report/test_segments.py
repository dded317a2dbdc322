"""Examples show what is trained with colours and without."""

import numpy as np

from sftkey_dist.report.segments import colour_segments, mark_trained

NAMES = ("prompt", "reasoning", "answer")
IDS, SEGMENTS = np.array([ord(c) for c in "So?ayes"]), np.array([0, 0, 0, 1, 2, 2, 2])


class Letters:
    """A tokenizer whose tokens are characters."""

    def decode(self, ids, clean_up_tokenization_spaces):
        assert not clean_up_tokenization_spaces
        return "".join(map(chr, ids))


def marked(weights, example_weight=1.0):
    return mark_trained(Letters(), IDS, SEGMENTS, weights, "stage key", example_weight).plain.split("\n")


def test_trained_tokens_can_be_told_from_others_in_plain_text():
    assert marked((0, 0, 1)) == ["stage key: 3 of 7 tokens carry loss", "So?a[[yes]]"]
    assert marked((0, 1, 1)) == ["stage key: 4 of 7 tokens carry loss", "So?[[ayes]]"]
    assert marked((0, 0.5, 2)) == ["stage key: 4 of 7 tokens carry loss", "So?0.5*[[a]]2*[[yes]]"]
    assert marked((0, 0, 1), 2.0) == ["stage key: 3 of 7 tokens carry loss", "So?a2*[[yes]]"]
    assert marked((1, 0, 0)) == ["stage key: 2 of 7 tokens carry loss", "S[[o?]]ayes"], "nothing predicts the first"


def test_segments_are_named_where_there_are_no_colours():
    plain = colour_segments(Letters(), IDS, SEGMENTS, NAMES, has_colours=False)
    assert plain.plain == "prompt: So?\nreasoning: a\nanswer: yes"
    coloured = colour_segments(Letters(), IDS, SEGMENTS, NAMES)
    assert coloured.plain.split() == ["prompt", "reasoning", "answer", "So?ayes"]
    assert len({span.style for span in coloured.spans}) == 6, "a colour for each, reversed in the legend"
