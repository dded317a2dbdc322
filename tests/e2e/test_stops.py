"""Runs that a person interrupts; tests/distributed/test_watched.py has those that stop by themselves."""

import signal
import subprocess
import time

from tests.e2e.conftest import ENTRY_POINT, environment


def test_ctrl_c_ends_the_run_with_its_exit_code_and_says_how_to_go_on(tiny_config, tmp_path):
    arguments = [str(tiny_config), "optimization.num_epochs=300", "strategies=[key-tag]"]
    driver = subprocess.Popen(
        [*ENTRY_POINT, "run", *arguments],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 200
        while not list(tmp_path.glob("runs/tiny/stages/tagged-key-*/metrics.jsonl")):
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(2)
        driver.send_signal(signal.SIGINT)
        _, errors = driver.communicate(timeout=90)
    finally:
        driver.kill()
    assert driver.returncode == 130, errors
    assert "interrupted; run the same command again" in errors
    assert "Traceback" not in errors
