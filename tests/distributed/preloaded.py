"""The last module that the server of ranks loads.

It loads what each rank would load with its model and each command with its run and tracking server, and has them look
for garbage among their own objects only.
"""

import gc

from transformers import Qwen3ForCausalLM

import sftkey_dist.cli
import sftkey_dist.pipeline.run
from sftkey_dist.tracking import mlflow_store

LOADED = Qwen3ForCausalLM, sftkey_dist.pipeline.run, mlflow_store
gc.collect()
gc.freeze()
