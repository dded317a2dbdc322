"""The evaluation settings of a strategy, for the test sets and for held-out training examples."""

from sftkey_dist.config.evaluation import SamplingConfig
from sftkey_dist.config.own_data import OwnDataConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.evaluation.answers.choose import ChecksBySegment, choose_checks, common_checks
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.strategy import Strategy

HELD_OUT = ""
"""Data set name of held-out training examples, because the store does not record which source they come from."""


def settings_for_tests(config: RunConfig, strategy: Strategy) -> EvaluationSettings:
    """Settings for the test sets, with a check per test set and key segment."""
    return _settings(config, strategy, choose_checks(config.data.test_sources, config.contract, config.evaluation))


def settings_for_held_out(config: RunConfig, strategy: Strategy) -> EvaluationSettings:
    """Settings for held-out training examples, with the checks that all training sources have in common."""
    return _settings(config, strategy, {HELD_OUT: common_checks(config.data.train, config.contract, config.evaluation)})


def settings_for_own_data(config: RunConfig, strategy: Strategy, data: OwnDataConfig) -> EvaluationSettings:
    """Settings for responses that a stage trains on, with a check per training source and key segment."""
    checks = {
        name: check
        for name, source in zip(config.data.names_of_training_sources, config.data.train, strict=True)
        for check in choose_checks([source], config.contract, config.evaluation).values()
    }
    sampling = SamplingConfig(num_samples=data.samples, temperature=data.temperature, top_p=data.top_p)
    settings = config.evaluation.model_copy(update={"sampling": sampling, "guided": False})
    return _settings(config.model_copy(update={"evaluation": settings}), strategy, checks)


def _settings(config: RunConfig, strategy: Strategy, checks: dict[str, ChecksBySegment]) -> EvaluationSettings:
    return EvaluationSettings(
        form=strategy.form,
        contract=config.contract,
        prompt=config.prompt.of_prepared_model,
        settings=config.evaluation,
        checks=checks,
        seed=config.seed,
        trust_remote_code=config.model.trust_remote_code,
    )
