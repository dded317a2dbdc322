"""Which ids belong to a segment."""

from sftkey_dist.contract import ResponseContract
from sftkey_dist.training.segment_gradients import segments_of


def test_tags_belong_to_their_segment_and_the_end_of_turn_to_the_last(contract):
    names = contract.segment_names
    found = {segment: {names[number] for number in ids} for segment, ids in segments_of(names).items()}
    assert found == {
        "reasoning": {"reasoning.open", "reasoning", "reasoning.close"},
        "answer": {"answer.open", "answer", "answer.close", "end_of_turn"},
    }


def test_every_segment_of_a_contract_of_ones_own_is_compared():
    segments = [
        {"name": name, "tag": name.capitalize(), "key": name == "verdict"} for name in ("plan", "work", "verdict")
    ]
    names = ResponseContract.model_validate({"segments": segments}).segment_names
    assert list(segments_of(names)) == ["plan", "work", "verdict"]
