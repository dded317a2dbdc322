"""Progress of long work."""

from sftkey_dist import console
from sftkey_dist.console import ProgressLine


def test_what_an_interrupted_start_had_done_does_not_count_for_the_estimate(monkeypatch, capsys):
    seconds = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: seconds[0])
    line = ProgressLine(None, "stage", 100)
    # It had come to step 40, and goes on from the checkpoint of step 20.
    for seconds[0], done in ((1.0, 40), (100.0, 20), (120.0, 41)):
        line.update(done)
    assert capsys.readouterr().out.splitlines()[-1].endswith("120 s, 56 s left")
