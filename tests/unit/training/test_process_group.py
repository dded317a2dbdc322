"""What workers load before they train."""

import subprocess
import sys


def test_an_error_of_loading_is_left_to_the_training_function_where_ray_names_the_rank():
    script = """
import sys
sys.modules["sftkey_dist.training.loop"] = None
from sftkey_dist.training.workers.process_group import load_libraries
from sftkey_dist.training.workers.worker import train_worker
load_libraries()
assert "transformers.modeling_utils" in sys.modules
try:
    train_worker({"queue": None, "num_threads": 1})
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "sftkey_dist.training.loop" in done.stdout
