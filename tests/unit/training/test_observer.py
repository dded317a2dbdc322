from types import SimpleNamespace

from sftkey_dist.training.diagnostics.stopwatch import Stopwatch
from sftkey_dist.training.validation.observer import Observer


def test_the_last_step_is_measured_whenever_it_is():
    """The stage has measured its start before an interruption."""
    measured: list[int] = []
    observer = object.__new__(Observer)
    observer._job = SimpleNamespace(validation=SimpleNamespace(every_steps=5))
    observer._guard, observer._watch, observer._observed_steps = None, Stopwatch(), {0}
    for step in range(8):
        observer._held_out = SimpleNamespace(measure=lambda now=step: measured.append(now))
        observer.observe(step, is_last=step == 7)
    assert measured == [5, 7]
