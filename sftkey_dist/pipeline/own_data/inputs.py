"""What the result of a stage on the model's own responses depends on, beside the settings of the stage."""

from pydantic_core import to_jsonable_python

from sftkey_dist.config.answer_check import without_folders
from sftkey_dist.config.run import RunConfig
from sftkey_dist.pipeline.evaluation_settings import settings_for_own_data
from sftkey_dist.strategy import Stage, Strategy


def own_data_inputs(config: RunConfig, strategy: Strategy, stage: Stage) -> dict[str, object]:
    """Inputs of a stage that tell how its responses are generated, judged and encoded; empty for other stages."""
    if stage.data is None:
        return {}
    evaluation, checks = config.evaluation, settings_for_own_data(config, strategy, stage.data).checks
    keys = ["max_new_tokens", "stop_at", "backend"]
    if evaluation.backend == "transformers" and stage.data.temperature:
        keys.append("batch_size")  # the prompts of a batch draw from one stream of random numbers
    own = {
        "evaluation": {key: getattr(evaluation, key) for key in keys},
        "contract": config.contract.of_form(strategy.form),
        "checks": without_folders(to_jsonable_python(list(checks.values()))),  # without the names of the sources
        "max_length_tokens": config.data.max_length_tokens,
    }
    return {"own_responses": own}
