"""Which files and folders a configuration names."""

from collections.abc import Iterator

from sftkey_dist.config.answer_check import AnswerCheck, FunctionCheck
from sftkey_dist.config.evaluation import LocalJudgeConfig
from sftkey_dist.config.run import RunConfig


def function_checks(config: RunConfig) -> list[FunctionCheck]:
    """The functions of the user's own that compare answers."""
    checks: list[AnswerCheck | None] = [config.evaluation.answer_check, *config.evaluation.answer_checks.values()]
    checks += [source.answer_check for source in (*config.data.train, *config.data.test)]
    return [check for check in checks if isinstance(check, FunctionCheck)]


def named_paths(config: RunConfig) -> Iterator[str]:
    """Every setting that may name a file or a folder that a run reads; some are the names of other things."""
    sources = (*config.data.train, *config.data.test)
    judge = config.evaluation.judge
    paths = [config.model.path, *(source.path for source in sources)]
    if config.prompt.chat_template is not None:
        paths.append(str(config.prompt.chat_template))
    if config.evaluation.capabilities is not None:
        paths.append(str(config.evaluation.capabilities.task_dir or ""))
    paths += [check.function.rpartition(":")[0] for check in function_checks(config)]
    if judge is not None:
        paths += [judge.template, judge.rubric]
        paths += [one.path for one in judge.judges if isinstance(one, LocalJudgeConfig)]
    yield from filter(None, paths)
