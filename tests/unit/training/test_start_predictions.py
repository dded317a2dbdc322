import numpy as np
import pytest

from sftkey_dist.errors import DataError
from sftkey_dist.training.steps.start_predictions import StartPredictions, write_part


def predictions(length, number):
    return np.full((length, 2), number, np.int32), np.full((length, 2), -0.5 * number, np.float32)


def test_predictions_are_found_by_example_in_whatever_file_they_are(tmp_path):
    write_part(tmp_path / "part_00000_rank_00000.safetensors", {7: predictions(3, 1), 2: predictions(1, 2)})
    write_part(tmp_path / "part_00001_rank_00000.safetensors", {4: predictions(2, 3)})
    write_part(tmp_path / "part_00001_rank_00001.safetensors", {})
    (tmp_path / ".part_00002_rank_00000.safetensors").write_bytes(b"an unfinished file")
    found = StartPredictions(tmp_path, 2)
    assert found.num_files == 2
    assert found.missing(np.array([2, 3, 4, 7])).tolist() == [3]
    for index, (length, number) in {7: (3, 1), 2: (1, 2), 4: (2, 3)}.items():
        for part, expected in zip(found.of(index), predictions(length, number), strict=True):
            np.testing.assert_array_equal(part, expected)
    assert [part.shape for part in found.of(3)] == [(0, 2), (0, 2)]
    found.close()
    assert StartPredictions(tmp_path / "nowhere", 2).missing(np.array([1])).tolist() == [1]


def test_a_damaged_file_is_named(tmp_path):
    file = tmp_path / "part_00000_rank_00000.safetensors"
    write_part(file, {0: predictions(4, 1)})
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"part_00000_rank_00000\.safetensors: .*; remove the file"):
        StartPredictions(tmp_path, 2)
