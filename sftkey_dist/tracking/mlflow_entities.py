"""Our runs, metrics and data sets as MLflow's."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from sftkey_dist.tracking.numbers import numbers_of
from sftkey_dist.tracking.tracker import RUN_TAG, SEED_TAG, STRATEGY_TAG, DataSetNote


def title_of(name: str, tags: Mapping[str, str], experiment: str) -> str:
    """``sft-tag seed-0: evaluation``, because lists and charts show runs of several strategies and seeds side by side.

    The run directory is a part of it unless the experiment has its name, as in ``sft-tag plain/seed-0``.
    """
    if not {STRATEGY_TAG, RUN_TAG, SEED_TAG} <= tags.keys():
        return name
    strategy, run, seed = tags[STRATEGY_TAG], tags[RUN_TAG], f"seed-{tags[SEED_TAG]}"
    places = [*([] if run == experiment else [run]), *([] if run.endswith(f"/{seed}") else [seed])]
    of_strategy = f"{strategy} {'/'.join(places)}"
    return of_strategy if name == strategy else f"{of_strategy}: {name}"


def metrics_of(
    records: Sequence[Mapping[str, Any]], model_id: str | None = None, data_set: DataSetNote | None = None
) -> list[Metric]:
    """The numbers of records at their steps, of a model and on a data set if there are any."""
    now_ms = int(time.time() * 1000)  # of two values at one step, MLflow shows the later one
    name, digest = (None, None) if data_set is None else (data_set.name, data_set.digest)
    return [
        Metric(key, value, now_ms, int(record["step"]), model_id, name, digest)
        for record in records
        for key, value in numbers_of(record).items()
    ]


def input_of(data_set: DataSetNote) -> DatasetInput:
    """A data set as the input of a run."""
    entity = Dataset(
        name=data_set.name,
        digest=data_set.digest,
        source_type="local",
        source=json.dumps({"uri": data_set.place}),
        profile=json.dumps({"num_rows": data_set.num_rows}),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", data_set.context)])
