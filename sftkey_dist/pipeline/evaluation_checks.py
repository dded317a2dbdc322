"""Finds problems that would stop an evaluation, before hours of training."""

from collections.abc import Callable, Sequence

from sftkey_dist.config.data import SourceConfig
from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.evaluation import LocalJudgeConfig
from sftkey_dist.config.model import ModelConfig
from sftkey_dist.config.run import RunConfig
from sftkey_dist.data.example import Example
from sftkey_dist.evaluation.answers import make_check
from sftkey_dist.evaluation.answers.choose import choose_checks
from sftkey_dist.evaluation.capabilities.harness import require_tasks
from sftkey_dist.evaluation.generation.guide import Guide
from sftkey_dist.evaluation.generation.load import require_backend, require_grammar
from sftkey_dist.evaluation.judge.template import load_template
from sftkey_dist.models.load import locate_model
from sftkey_dist.strategy import resolve_strategies


def reference_reader(config: RunConfig) -> Callable[[Example, str], str | None]:
    """A function that explains why answers cannot be compared with the reference of a test example's segment."""
    chosen = choose_checks(config.data.test_sources, config.contract, config.evaluation)
    checks = {
        data_set: {name: make_check(check) for name, check in of_segments.items()}
        for data_set, of_segments in chosen.items()
    }

    def problem_with(example: Example, segment: str) -> str | None:
        problem = checks[example.data_set][segment].problem_with(example.values[segment], example.prompt)
        check = chosen[example.data_set][segment]
        named = check if isinstance(check, str) else next(iter(check.model_dump()))
        return problem and (
            f"{problem}, so that no answer could be compared with it by the check {named!r}; correct the row, or "
            f"choose another check with answer_check"
        )

    return problem_with


def check_evaluation(config: RunConfig) -> None:
    """Find problems that would stop the evaluation, before hours of training.

    Raises:
        ConfigError: a check, a template, a key, a proxy, the backend or a task cannot be used, or guided decoding with
            this contract.
        ModelError: the model of a local judge cannot be used.
    """
    sources: Sequence[SourceConfig] = (*config.data.test, *config.data.train)
    for source in sources:
        (checks,) = choose_checks([source], config.contract, config.evaluation).values()
        for check in checks.values():
            make_check(check)
    require_backend(config.evaluation)
    if config.evaluation.guided:
        for form in dict.fromkeys(strategy.form for strategy in resolve_strategies(config)):
            require_grammar(Guide(config.contract, form))
    if config.evaluation.endpoint is not None:
        _check_endpoint(config.evaluation.endpoint)
    if config.evaluation.capabilities is not None:
        require_tasks(config.evaluation.capabilities)
    judge = config.evaluation.judge
    if judge is None:
        return
    for template in (judge.template, judge.rubric):
        if template is not None:
            load_template(template)
    for member in judge.judges:
        if isinstance(member, LocalJudgeConfig):
            locate_model(ModelConfig(path=member.path, revision=member.revision))
        else:
            _check_endpoint(member)


def _check_endpoint(config: EndpointConfig) -> None:
    from sftkey_dist.endpoint.settings import check_endpoint  # loads openai

    check_endpoint(config)
