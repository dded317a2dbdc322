"""How the outputs of a strategy are made and judged."""

from sftkey_dist.config.run import RunConfig
from sftkey_dist.evaluation.answers.choose import ChecksBySegment, choose_checks, common_checks
from sftkey_dist.evaluation.assessment import Assessment
from sftkey_dist.strategy import Strategy

HELD_OUT = ""
"""The data set of held-out training examples: the store does not say which source they are from."""


def assess_tests(config: RunConfig, strategy: Strategy) -> Assessment:
    """For the test sets."""
    return _assessment(config, strategy, choose_checks(config.data.test, config.contract, config.evaluation))


def assess_held_out(config: RunConfig, strategy: Strategy) -> Assessment:
    """For held-out training examples."""
    return _assessment(
        config, strategy, {HELD_OUT: common_checks(config.data.train, config.contract, config.evaluation)}
    )


def _assessment(config: RunConfig, strategy: Strategy, checks: dict[str, ChecksBySegment]) -> Assessment:
    return Assessment(
        form=strategy.form,
        contract=config.contract,
        prompt=config.prompt.without_date,
        settings=config.evaluation,
        checks=checks,
        seed=config.seed,
        trust_remote_code=config.model.trust_remote_code,
    )
