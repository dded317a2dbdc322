"""The status of a tracked run says how its work ended."""

from unittest.mock import create_autospec

import pytest

from sftkey_dist.errors import InterruptedRunError, RunLostError, TrainingError
from sftkey_dist.pipeline.tracking.runs import ending_run
from sftkey_dist.tracking import Tracker


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InterruptedRunError(15), ("KILLED",)),
        (KeyboardInterrupt(), ("KILLED",)),
        (TrainingError("out of memory"), ("FAILED",)),
        (SystemExit(1), ("FAILED",)),
    ],
    ids=["a signal", "Ctrl-C in a Python program", "an error", "an exit"],
)
def test_what_ends_early_has_a_status_that_says_why(error, status):
    tracker = create_autospec(Tracker, instance=True)
    with pytest.raises(type(error)), ending_run(tracker, "run"):
        raise error
    tracker.end_run.assert_called_once_with("run", *status)


def test_what_succeeds_is_finished_and_what_is_lost_is_left_to_its_new_owner():
    tracker = create_autospec(Tracker, instance=True)
    with ending_run(tracker, "run"):
        pass
    tracker.end_run.assert_called_once_with("run")
    tracker.reset_mock()
    with pytest.raises(RunLostError), ending_run(tracker, "run"):
        raise RunLostError("taken over")
    tracker.end_run.assert_not_called()
