"""Runs that stop: interrupted by a person, or by numbers that are none."""

import signal
import subprocess
import time

from tests.e2e.conftest import ENTRY_POINT, environment, error_line


def test_ctrl_c_ends_the_run_with_its_exit_code_and_says_how_to_go_on(tiny_config, tmp_path):
    arguments = [str(tiny_config), "key_stage.optimization.num_epochs=200", "strategies=[sftkey-tag]"]
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
        while not list(tmp_path.glob("runs/tiny/stages/tagged-full-key-*/metrics.jsonl")):
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


def test_a_loss_that_is_no_number_stops_before_the_update_and_names_the_step(sftkey, tiny_config):
    done = sftkey("train", tiny_config, "strategies=[sft-tag]", "optimization.learning_rate=1e18")
    assert done.returncode == 1
    line = error_line(done)
    assert "no weight was updated" in line
    assert "decision_memos/train:" in line
