"""How many actors generate."""

from sftkey_dist.config.run import RunConfig
from sftkey_dist.pipeline import generation_pool


def test_actors_of_several_accelerators_take_what_room_there_is_unless_a_number_is_asked_for(monkeypatch):
    """Of 4 nodes with 8 accelerators each, 2 models of 3 fit on a node, and not 32 // 3 in all."""
    config = {
        "run_dir": "run",
        "model": {"embedded": {}},
        "data": {
            "train": {"adapter": "decision_memos", "limit": 9},
            "test": {"adapter": "decision_memos", "split": "test", "limit": 9},
        },
        "cluster": {"num_workers": 32, "gpus_per_worker": 1},
    }
    asked = []
    monkeypatch.setattr(
        generation_pool, "wait_for_room", lambda cluster, wanted, gpus: asked.append((cluster.min_workers, wanted)) or 8
    )
    for evaluation in ({"gpus_per_model": 3}, {"gpus_per_model": 3, "num_workers": 9}):
        assert generation_pool.room_for_actors(RunConfig.model_validate(config | {"evaluation": evaluation})) == 8
    assert asked == [(1, 10), (None, 9)]
