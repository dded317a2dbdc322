"""One judge, or several that vote, with a cache of rulings and a budget of questions.

The libraries of a kind of judge are imported when the first judge of that kind starts.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sftkey_dist.config.cluster import ClusterConfig
from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.evaluation import JudgeConfig, LocalJudgeConfig
from sftkey_dist.config.model import ModelConfig
from sftkey_dist.console import console
from sftkey_dist.endpoint import failure_name
from sftkey_dist.evaluation.judge.asking import Judge
from sftkey_dist.evaluation.judge.memory import JudgeMemory, ruling_key
from sftkey_dist.evaluation.judge.reading import Reader, Ruling, read_rating, read_verdict
from sftkey_dist.evaluation.judge.template import JudgeTemplate, Question, load_template
from sftkey_dist.evaluation.judge.voting import JuryResult, Unjudgeable, majority, may_be_of_text, median_rating
from sftkey_dist.models.load import locate_model, model_fingerprint

Progress = Callable[[int], None]


@dataclass
class JuryUse:
    """How often judges were asked, how often a ruling was cached, and how often they failed.

    Attributes:
        asked: number of questions that were sent to judges.
        remembered: number of questions whose ruling was cached.
        failures: number of questions without a ruling, by the name of the failure.
        messages: message of the server at the first failure of each name.
        notes: request parameters that had to be renamed or left out, one note each.
    """

    asked: int = 0
    remembered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_failure(self, failure: str) -> None:
        """Count a failure, given as `name` or `name: message`."""
        name, _, message = failure.partition(": ")
        self.failures[name] += 1
        if message:
            self.messages.setdefault(name, message)

    def to_json(self) -> dict[str, Any]:
        """Plain values. `asdict` cannot convert a Counter."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"failures": dict(self.failures)}


@dataclass(frozen=True)
class _JudgeContext:
    """A judge with the template and the reader of its replies, and where its use is counted."""

    name: str
    judge: EndpointConfig | LocalJudgeConfig
    template: JudgeTemplate
    reader: Reader
    use: JuryUse


class Jury:
    """Judges answers. Cached rulings are not asked for again. A judge's actors start with the first question to it."""

    def __init__(self, config: JudgeConfig, memory: JudgeMemory, cluster: ClusterConfig, num_workers: int) -> None:
        """
        Raises:
            ConfigError: a template cannot be used.
        """
        self._config = config
        self._memory = memory
        self._cluster = cluster
        self._num_workers = num_workers
        self._template = load_template(config.template)
        self._rubric = load_template(config.rubric) if config.rubric else None
        self._names = [judge_name(judge) for judge in config.judges]
        self._opened: dict[str, Judge] = {}
        self._said: set[str] = set()
        self._budgets = self._new_budgets()

    def __enter__(self) -> "Jury":
        return self

    def __exit__(self, *_: object) -> None:
        for judge in self._opened.values():
            judge.close()

    def judge(self, questions: Sequence[Question], progress: Progress) -> tuple[list[JuryResult], JuryUse]:
        """Judge whether each answer means the same as its reference. Each call has a budget of its own."""
        self._budgets = self._new_budgets()
        return self._results_for(questions, self._template, read_verdict, progress)

    def rate(self, questions: Sequence[Question], progress: Progress) -> tuple[list[JuryResult], JuryUse]:
        """Rate each explanation from 1 to 5 by the median of the judges' ratings."""
        if self._rubric is None:
            raise ValueError("the configuration names no rubric")
        return self._results_for(questions, self._rubric, read_rating, progress)

    def _results_for(
        self, questions: Sequence[Question], template: JudgeTemplate, reader: Reader, progress: Progress
    ) -> tuple[list[JuryResult], JuryUse]:
        use, rulings = JuryUse(), []
        for name, judge in zip(self._names, self._config.judges, strict=True):
            rulings.append(self._ask(name, judge, questions, template, reader, use, progress))
        decide = majority if reader is read_verdict else median_rating
        return [decide(dict(zip(self._names, of_one, strict=True))) for of_one in zip(*rulings, strict=True)], use

    def _ask(
        self,
        name: str,
        judge: EndpointConfig | LocalJudgeConfig,
        questions: Sequence[Question],
        template: JudgeTemplate,
        reader: Reader,
        use: JuryUse,
        progress: Progress,
    ) -> list[Ruling | Unjudgeable | str]:
        """For each question the ruling, or the reason why there is none."""
        by_key = {ruling_key(name, template.digest, question): question for question in questions}
        keys = [ruling_key(name, template.digest, question) for question in questions]
        context = _JudgeContext(name, judge, template, reader, use)
        unknown = [key for key in by_key if self._memory.get(key) is None]
        use.remembered += len(by_key) - len(unknown)
        known = len(questions) - len(unknown)
        progress(known)
        failures = self._put({key: by_key[key] for key in unknown}, context, lambda done: progress(known + done))
        suspects = {key: by_key[key] for key, failure in failures.items() if may_be_of_text(failure)}
        unjudgeable = self._unjudgeable(suspects, context)
        for failure in failures.values():
            use.add_failure(failure)
        return [self._memory.get(key) or unjudgeable.get(key) or failure_name(failures[key]) for key in keys]

    def _unjudgeable(self, suspects: Mapping[str, Question], context: "_JudgeContext") -> dict[str, Unjudgeable]:
        """The questions on which the candidate's text makes the judge fail.

        The judge rules on the same question with the reference in the candidate's place, and then fails on the
        candidate's text again. So neither the question nor a temporary problem of the server is the cause.
        """
        controls = {key: replace(question, answer=question.reference) for key, question in suspects.items()}
        control_keys = {key: ruling_key(context.name, context.template.digest, of) for key, of in controls.items()}
        unknown = {control_keys[key]: of for key, of in controls.items() if self._memory.get(control_keys[key]) is None}
        self._put(unknown, context, _no_progress)
        again = {key: of for key, of in suspects.items() if self._memory.get(control_keys[key]) is not None}
        failures = self._put(again, context, _no_progress)
        return {key: Unjudgeable(failure_name(said)) for key, said in failures.items() if may_be_of_text(said)}

    def _put(self, questions: Mapping[str, Question], context: "_JudgeContext", progress: Progress) -> dict[str, str]:
        """Ask as many questions as the budget allows, cache the rulings, and return the failures by key."""
        budget = self._budgets[context.name]
        within_budget = {key: context.template.chat(of) for key, of in list(questions.items())[:budget]}
        failures = dict.fromkeys(questions.keys() - within_budget.keys(), "budget_spent")
        if within_budget:
            replies = self._open(context.name, context.judge).ask(within_budget, context.reader)
            for done, (key, reply) in enumerate(replies, start=1):
                if reply.ruling is not None:
                    self._memory.put(key, reply.ruling)
                else:
                    failures[key] = reply.failure
                self._say_once(context.name, reply.notes, context.use)
                progress(done)
        context.use.asked += len(within_budget)
        if budget is not None:
            self._budgets[context.name] = budget - len(within_budget)
        return failures

    def _say_once(self, judge: str, notes: Sequence[str], use: JuryUse) -> None:
        for note in (f"judge {judge}: {note}" for note in notes):
            if note not in use.notes:
                use.notes.append(note)
            if note not in self._said:
                self._said.add(note)
                console.print(note, soft_wrap=True, markup=False)

    def _close_local_judges(self) -> None:
        for name, judge in zip(self._names, self._config.judges, strict=True):
            if isinstance(judge, LocalJudgeConfig) and name in self._opened:
                self._opened.pop(name).close()

    def _new_budgets(self) -> dict[str, int | None]:
        return dict.fromkeys(self._names, self._config.most_questions)

    def _open(self, name: str, judge: EndpointConfig | LocalJudgeConfig) -> Judge:
        if name not in self._opened:
            self._opened[name] = self._start(judge)
        return self._opened[name]

    def _start(self, judge: EndpointConfig | LocalJudgeConfig) -> Judge:
        if isinstance(judge, EndpointConfig):
            from sftkey_dist.evaluation.judge.served import open_served_judge

            return open_served_judge(judge)
        from sftkey_dist.evaluation.judge.local import open_local_judge

        self._close_local_judges()  # another judge may hold the resources that this one waits for
        return open_local_judge(judge, judge_folder(judge), self._cluster, self._num_workers)


def _no_progress(done: int) -> None:
    """Progress of additional questions, which are not counted."""


def judge_folder(config: LocalJudgeConfig) -> Path:
    """Folder of a judge's model.

    Raises:
        ModelError: the model is missing.
    """
    return locate_model(ModelConfig(path=config.path, revision=config.revision))


def judge_name(config: EndpointConfig | LocalJudgeConfig) -> str:
    """Name of a judge in caches and records. It depends on the model and on how it is asked, not on the server."""
    if isinstance(config, EndpointConfig):
        return config.model
    folder = judge_folder(config)
    how = "" if config.reply == "written" else f"+{config.reply}"
    return f"{folder.name}@{model_fingerprint(folder)[:8]}{how}"


def make_jury(config: JudgeConfig, run_dir: Path, cluster: ClusterConfig, num_workers: int) -> Jury:
    """The jury of a configuration, with its cache in ``cache_dir`` or in the run directory.

    Raises:
        ConfigError: a template cannot be used.
    """
    return Jury(
        config, JudgeMemory(config.cache_dir or run_dir / "evaluation" / "judge", run_dir), cluster, num_workers
    )
