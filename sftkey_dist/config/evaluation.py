"""The configuration of evaluation: generation, deterministic checks, judges, scores."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sftkey_dist.config.answer_check import AnswerCheck
from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.paths import LocalPath, Location
from sftkey_dist.config.section import MOST_ROWS, MOST_WORKERS, Section, zero_or_from


class ServedModelConfig(EndpointConfig):
    """A server that generates in place of this process."""

    api: Literal["completions", "chat"] = "completions"
    """`completions` sends the training prompt's token ids, as vLLM takes them; `chat` sends messages, and the server's
    own chat template decides what the model reads."""
    concurrency: int = Field(32, ge=1, le=10_000)
    """Requests under way at a time."""


class SamplingConfig(Section):
    """Several responses a question instead of one greedy one."""

    num_samples: int = Field(1, ge=1, le=10_000)
    """Responses a question; with more than one, pass@k and the majority's accuracy are reported."""
    temperature: Annotated[float, zero_or_from(1e-3)] = Field(0.0, ge=0, le=100)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus."""

    @model_validator(mode="after")
    def several_samples_differ(self) -> Self:
        """Greedy responses to one question are all the same."""
        if self.num_samples > 1 and self.temperature == 0:
            raise ValueError("num_samples above 1 needs a temperature above 0, else all samples are the same")
        return self


class LocalJudgeConfig(Section):
    """A judge that runs on the cluster."""

    path: Location
    """Folder with a Hugging Face model and a chat template, or an id on the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the judge's model."""
    reply: Literal["written", "chosen"] = "written"
    """`chosen`: the judge writes nothing; of the possible replies the one counts that it finds likeliest. For models
    too small to keep to the form of a reply."""
    max_tokens: int = Field(256, ge=1, le=1_000_000)
    """Longest written reply in tokens."""
    batch_size: int = Field(8, ge=1, le=65_536)
    """Questions judged together."""


class JudgeConfig(Section):
    """Language models that say whether an answer means the same as the reference."""

    judges: tuple[EndpointConfig | LocalJudgeConfig, ...] = Field(min_length=1)
    """One judge, or several that vote; a verdict needs more than half of all. Each is a server, `{url, model, …}`, or
    a model on the cluster, `{path, …}`."""
    template: Location = "equivalence"
    """Prompt: a template that comes with the package, or a file with `{question}`, `{reference}` and `{answer}`."""
    rubric: Location | None = None
    """Also rate the explanation from 1 to 5 by this template: `explanation`, or a file."""
    decides: bool = True
    """Whether accuracy is the judges'. False: the deterministic checks decide, and how far the judges agree with them
    is reported, as of a judge that is not trusted yet."""
    skip_certain: bool = False
    """Do not ask where the deterministic check is certain, such as equal text or two different numbers."""
    most_questions: int | None = Field(None, ge=1, le=MOST_ROWS)
    """Budget: questions to one judge in one evaluation; what is left stays unjudged."""
    cache_dir: LocalPath | None = None
    """Folder of verdicts that other runs may share; default: in the run directory."""

    @model_validator(mode="after")
    def judges_differ(self) -> Self:
        """A model that votes twice is one judge with two votes."""
        names = [judge.model if isinstance(judge, EndpointConfig) else judge.path for judge in self.judges]
        if len(set(names)) < len(names):
            raise ValueError(f"judges must be different models, got {names}")
        return self


class EvaluationConfig(Section):
    """How a model is tested."""

    backend: Literal["transformers", "vllm", "endpoint"] = "transformers"
    """Who generates: actors with transformers or vLLM (extra `vllm`), or the server that `endpoint` names."""
    endpoint: ServedModelConfig | None = None
    """Server for `backend: endpoint`; `{strategy}` in its `model` stands for the strategy's name."""
    max_new_tokens: int = Field(512, ge=1, le=1_000_000)
    """Longest generated response in tokens; the share of outputs that hit it is reported."""
    stop_at: Literal["end_of_turn", "closing_tag"] = "end_of_turn"
    """Where a response ends: with the end-of-turn token, or already with the contract's last closing tag. The latter
    hides what a model would have written after it."""
    sampling: SamplingConfig = SamplingConfig()
    """Greedy, or several samples."""
    batch_size: int = Field(16, ge=1, le=65_536)
    """Prompts generated together; vLLM is given 512 at a time and batches by itself."""
    gpus_per_model: int | None = Field(None, ge=1, le=1024)
    """Accelerators of a node that hold one model together: layers one after another with transformers, tensor
    parallel with vLLM. Default: one, where workers have accelerators."""
    limit: int | None = Field(None, ge=1, le=MOST_ROWS)
    """Use the first so many examples of each test set only."""
    answer_check: AnswerCheck = "auto"
    """Deterministic comparison: `exact` text, `numeric`, `math` (symbolic), `option` (letter or text), `label`, `json`,
    or one of `{regex}`, `{labels}`, `{json_fields}`, `{function}`. `auto` goes by the contract's check of the segment,
    then by the data set."""
    answer_checks: dict[str, AnswerCheck] = Field(default_factory=dict)
    """A comparison for single key segments, by name."""
    judge: JudgeConfig | None = None
    """Language models that judge; without, the deterministic comparison decides."""
    alpha: float = Field(0.7, ge=0, le=1)
    """Weight of accuracy in score = alpha * accuracy + (1 - alpha) * format; the paper's is 0.7."""
    num_workers: int | None = Field(None, ge=1, le=MOST_WORKERS)
    """Generation actors; by default as many as training ranks."""

    @model_validator(mode="after")
    def endpoint_goes_with_its_backend(self) -> Self:
        """A server that nobody asks, or none to ask, is a mistake."""
        if (self.backend == "endpoint") != (self.endpoint is not None):
            raise ValueError("backend: endpoint and endpoint: {url, model} go together")
        if self.endpoint is not None and self.endpoint.api == "chat" and self.stop_at == "closing_tag":
            raise ValueError("stop_at: closing_tag needs endpoint.api: completions")
        return self
