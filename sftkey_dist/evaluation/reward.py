"""Reinforcement learning's reward: the contract, the answer checks and the score of an evaluation, as functions.

`Reward.compute_score` has the signature that verl calls, and `Reward.reward_func` the one that TRL's GRPOTrainer calls,
so that a model is rewarded by the reader that has evaluated it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftkey_dist.config.load import load_config
from sftkey_dist.config.run import RunConfig
from sftkey_dist.contract import Form
from sftkey_dist.data.adapters.values import NoTextError, text_of
from sftkey_dist.data.example import Example
from sftkey_dist.endpoint.replies import text_of_content
from sftkey_dist.errors import ConfigError, DataError
from sftkey_dist.evaluation.answers.choose import choose_checks
from sftkey_dist.evaluation.generation import Generation
from sftkey_dist.evaluation.record import make_record
from sftkey_dist.evaluation.settings import EvaluationSettings
from sftkey_dist.evaluation.verdict import Verdict
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord, composite
from sftkey_dist.strategy import resolve_strategies
from sftkey_dist.suggestion import closest_name


@dataclass(frozen=True)
class Reward:
    """Scores responses as an evaluation does, by the deterministic checks; judges are not asked.

    The reward is ``alpha * accuracy + (1 - alpha) * format``, with the `evaluation.alpha` of the run. A response in any
    shape has a reward: one that breaks the contract has format 0, and its answer is searched for.
    """

    settings: EvaluationSettings

    @classmethod
    def from_run(cls, run_dir: str | Path, strategy: str | None = None) -> "Reward":
        """The reward that continues a run.

        Args:
            run_dir: folder of the run.
            strategy: strategy whose model is trained further; only needed if the run's strategies differ in the form of
                the response.

        Raises:
            ConfigError: There is no such run or strategy, or its contract cannot be read after generation.
        """
        file = RunDir(Path(run_dir)).config
        if not file.is_file():
            raise ConfigError(f"{run_dir}: no config.json, which a run writes; give the folder of a run")
        return cls.from_config(load_config([file]), strategy)

    @classmethod
    def from_config(cls, config: RunConfig, strategy: str | None = None) -> "Reward":
        """The reward of a run with this configuration, which need not exist; see `from_run`."""
        if config.contract.special_token_tags:
            raise ConfigError(
                "contract.special_token_tags=true: verl and TRL remove special tokens from a response before they ask "
                "for its reward, so that it would have no tags; train with contract.special_token_tags=false"
            )
        sources = (*config.data.train, *config.data.test_sources)
        return cls(
            EvaluationSettings(
                form=_form(config, strategy),
                contract=config.contract,
                prompt=config.prompt.of_prepared_model,
                settings=config.evaluation,
                checks=choose_checks(sources, config.contract, config.evaluation),
                seed=config.seed,
                trust_remote_code=config.model.trust_remote_code,
            )
        )

    def compute_score(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: object,
        extra_info: Mapping[str, Any] | None = None,
    ) -> dict[str, float]:
        """The reward of one response, as verl asks for it.

        Args:
            data_source: name of the data set, which decides the check if those of the run's sources differ.
            solution_str: the response.
            ground_truth: the reference answer; a mapping by segment if the contract has several key segments.
            extra_info: ``question`` is the text of the question, which the check `option` reads the options from.

        Returns:
            ``score``, which verl takes as the reward, and ``acc`` and ``format``, which it logs; the names are verl's.
            An answer that cannot be judged has accuracy 0.

        Raises:
            ConfigError: The checks of the run's sources differ, and ``data_source`` is none of these.
            DataError: ``ground_truth`` has no text for a key segment.
        """
        question = str((extra_info or {}).get("question") or "")
        record = self._record(str(solution_str), ground_truth, question, data_source)
        return {
            "score": self._score(record),
            "acc": float(record.verdict == Verdict.CORRECT),
            "format": float(record.keeps_contract),
        }

    def reward_func(
        self,
        completions: Sequence[object],
        ground_truth: Sequence[object],
        prompts: Sequence[object] | None = None,
        data_source: Sequence[str] | None = None,
        **columns: object,
    ) -> list[float | None]:
        """The rewards of a batch of B responses, as TRL's GRPOTrainer asks for them.

        Args:
            completions: the responses, as texts or as lists of messages, of which the last one is read, [B].
            ground_truth: the column of that name, [B]; see `compute_score`.
            prompts: the prompts, as texts or as lists of messages, of which the user's last one is the question, [B].
            data_source: the column of that name, if the data set has one, [B]; see `compute_score`.
            columns: other columns, which are not used.

        Returns:
            The rewards, [B]; None, which TRL leaves out, for an answer that cannot be judged.

        Raises:
            ConfigError, DataError: As `compute_score`.
        """
        rewards: list[float | None] = []
        for number, (completion, reference) in enumerate(zip(completions, ground_truth, strict=True)):
            question = _question_in(prompts[number]) if prompts is not None else ""
            name = data_source[number] if data_source is not None else ""
            record = self._record(_response_in(completion), reference, question, name)
            rewards.append(None if record.verdict == Verdict.UNJUDGED else self._score(record))
        return rewards

    def _record(self, response: str, ground_truth: object, question: str, data_source: str) -> EvaluationRecord:
        name = self._data_set(data_source)
        example = Example("", question, self._references(ground_truth), data_set=name)
        return make_record(example, Generation(response, 0, False), self.settings)

    def _score(self, record: EvaluationRecord) -> float:
        accuracy = float(record.verdict == Verdict.CORRECT)
        return composite(accuracy, float(record.keeps_contract), self.settings.settings.alpha)

    def _data_set(self, data_source: str) -> str:
        """The name of a data set of the run whose checks are used."""
        checks = self.settings.checks
        if data_source in checks:
            return data_source
        first, *others = checks
        if all(checks[name] == checks[first] for name in others):
            return first
        raise ConfigError(
            f"data_source {data_source!r} is none of the run's data sets, which differ in their answer checks: "
            f"{', '.join(checks)}; name one of them in the column data_source{_meant(data_source, checks)}"
        )

    def _references(self, ground_truth: object) -> dict[str, str]:
        segments = self.settings.contract.key_segments
        names = [segment.name for segment in segments]
        if isinstance(ground_truth, Mapping) and set(ground_truth) <= set(names):
            by_name = ground_truth
        elif len(names) == 1:
            by_name = {names[0]: ground_truth}
        else:
            raise DataError(f"ground_truth must be a mapping with a text for each of {', '.join(names)}")
        references = {name: _reference(name, by_name.get(name)) for name in names}
        for segment in segments:
            if segment.required and not references[segment.name].strip():
                raise DataError(f"ground_truth has no text for {segment.name}, so that no answer could be right")
        return references


def _form(config: RunConfig, strategy: str | None) -> Form:
    forms = {resolved.name: resolved.form for resolved in resolve_strategies(config)}
    named = ", ".join(f"{name} ({form.value})" for name, form in forms.items())
    if strategy is None and len(set(forms.values())) > 1:
        raise ConfigError(f"the run's strategies differ in the form of the response: {named}; name one of them")
    if strategy is None:
        return next(iter(forms.values()))
    if strategy not in forms:
        raise ConfigError(
            f"strategy {strategy!r}: there is no such strategy; the run has {named}{_meant(strategy, forms)}"
        )
    return forms[strategy]


def _meant(name: str, known: Iterable[str]) -> str:
    close = closest_name(name, known)
    return f"; did you mean {close!r}?" if close else ""


def _reference(segment: str, value: object) -> str:
    try:
        return text_of(value) or ""
    except NoTextError as error:
        raise DataError(f"ground_truth of {segment} {error}") from None


def _response_in(completion: object) -> str:
    """A text, or the text of the last of several messages; "" if that is the result of a tool and not a response."""
    if isinstance(completion, str):
        return completion
    last = completion[-1] if isinstance(completion, Sequence) and completion else None
    if not isinstance(last, Mapping) or last.get("role", "assistant") != "assistant":
        return ""
    return text_of_content(last.get("content"))


def _question_in(prompt: object) -> str:
    """A text, or the text of the user's last message."""
    if isinstance(prompt, str):
        return prompt
    messages = [message for message in prompt if isinstance(message, Mapping)] if isinstance(prompt, Sequence) else []
    asked = [message for message in messages if message.get("role") == "user"]
    return text_of_content(asked[-1].get("content")) if asked else ""
