"""The configuration of evaluation: generation, deterministic checks, judges, scores."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sftkey_dist.config.answer_check import AnswerCheck
from sftkey_dist.config.endpoint import EndpointConfig
from sftkey_dist.config.paths import LocalPath, Location
from sftkey_dist.config.section import MAX_ROWS, MAX_WORKERS, Section, SectionWithNewerKeys, zero_or_from


class ServedModelConfig(EndpointConfig):
    """A server that generates the responses."""

    api: Literal["completions", "chat"] = "completions"
    """`completions` sends the token ids of the prompt exactly as in training, which vLLM supports. `chat` sends
    messages, and the prompt depends on the server's own chat template."""
    concurrency: int = Field(32, ge=1, le=10_000)
    """Maximum number of concurrent requests."""


class SamplingConfig(Section):
    """Several sampled responses per question, instead of one greedy response."""

    num_samples: int = Field(1, ge=1, le=10_000)
    """Number of responses per question. With more than one, pass@k and the accuracy of the majority vote are
    reported."""
    temperature: Annotated[float, zero_or_from(1e-3)] = Field(0.0, ge=0, le=100)
    """Sampling temperature; 0 is greedy decoding."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Probability mass of nucleus sampling."""

    @model_validator(mode="after")
    def several_samples_differ(self) -> Self:
        """Greedy responses to the same question are identical."""
        if self.num_samples > 1 and self.temperature == 0:
            raise ValueError("num_samples above 1 needs a temperature above 0; otherwise all samples are identical")
        return self


class LocalJudgeConfig(Section):
    """A judge that runs on the cluster."""

    path: Location
    """Folder with a Hugging Face model and a chat template, or a model id on the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    trust_remote_code: bool = False
    """Run Python code from the judge's model repository. Leave it off unless you have read that code."""
    reply: Literal["written", "chosen"] = "written"
    """`written`: the judge generates its reply. `chosen`: the most likely of the possible replies is taken without
    generation, for models that are too small to follow the required format."""
    max_tokens: int = Field(256, ge=1, le=1_000_000)
    """Maximum length of a written reply, in tokens."""
    batch_size: int = Field(8, ge=1, le=65_536)
    """Number of questions that are judged together."""
    gpus_per_model: int | None = Field(None, ge=1, le=1024)
    """Number of accelerators of one node over which the judge's layers are distributed. Default: one, if workers have
    accelerators."""


class JudgeConfig(Section):
    """Language models that decide whether an answer means the same as the reference."""

    judges: tuple[EndpointConfig | LocalJudgeConfig, ...] = Field(min_length=1)
    """One judge, or several that vote; a verdict needs a majority of all judges. Each judge is a server,
    `{url, model, …}`, or a model on the cluster, `{path, …}`."""
    template: Location = "equivalence"
    """Prompt of the judge: a template that comes with the package, or a file that contains `{question}`, `{reference}`
    and `{answer}`."""
    rubric: Location | None = None
    """Also rate the explanation from 1 to 5 with this template: `explanation`, or a file. Default: no rating."""
    decides: bool = True
    """Whether the judges determine accuracy. If false, the deterministic checks do, and the agreement of the judges
    with them is reported; use this for a judge that is not trusted yet."""
    skip_certain: bool = False
    """Do not ask the judges where the deterministic check is certain, e.g. about equal text or two different
    numbers."""
    most_questions: int | None = Field(None, ge=1, le=MAX_ROWS)
    """Maximum number of questions to one judge in one evaluation. Answers beyond it stay unjudged."""
    cache_dir: LocalPath | None = None
    """Folder of cached verdicts, which runs can share. Default: a folder in the run directory."""

    @model_validator(mode="after")
    def judges_differ(self) -> Self:
        """The same model must not vote twice."""
        names = [judge.model if isinstance(judge, EndpointConfig) else judge.path for judge in self.judges]
        if len(set(names)) < len(names):
            raise ValueError(f"judges must be different models, got {names}")
        return self


class CapabilitiesConfig(Section):
    """What models can do before and after the training, measured with EleutherAI's lm-evaluation-harness (extra
    `capabilities`)."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """Names of tasks of the harness, or of groups of tasks, such as `arc_easy` or `mmlu`. A group counts as one task
    with the documents of all its tasks."""
    task_dir: LocalPath | None = None
    """Folder with tasks of one's own, as YAML files of the harness. Paths in these files are relative to the folder.
    Python code that they name is executed."""
    limit: int | None = Field(None, ge=1, le=MAX_ROWS)
    """Maximum number of documents per task, from the first one on."""
    num_fewshot: int | None = Field(None, ge=0, le=1000)
    """Number of solved examples in front of each document. Default: what each task defines."""
    batch_size: int = Field(16, ge=1, le=65_536)
    """Number of requests that a model answers together."""

    @model_validator(mode="after")
    def tasks_differ(self) -> Self:
        """A task that is named twice would be tested twice."""
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be different, got {list(self.tasks)}")
        return self


class EvaluationConfig(SectionWithNewerKeys):
    """How models are evaluated."""

    newer_keys = frozenset({"capabilities", "guided", "swapped_reasoning"})

    backend: Literal["transformers", "vllm", "endpoint"] = "transformers"
    """What generates the responses: actors with transformers or vLLM (extra `vllm`), or the server in `endpoint`."""
    endpoint: ServedModelConfig | None = None
    """Server for `backend: endpoint`. `{strategy}` in its `model` is replaced by the strategy's name."""
    max_new_tokens: int = Field(512, ge=1, le=1_000_000)
    """Maximum length of a generated response, in tokens. The share of outputs that reach it is reported."""
    stop_at: Literal["end_of_turn", "closing_tag"] = "end_of_turn"
    """Where generation stops: at the end-of-turn token, or already at the contract's last closing tag, which hides what
    the model would have written after it."""
    sampling: SamplingConfig = SamplingConfig()
    """Greedy decoding or several samples."""
    guided: bool = False
    """Only generate what the contract's format and the checks of its segments allow (extra `guided` for the backend
    `transformers`). It shows which answers are wrong though the format cannot be. The guard and stages on own responses
    generate freely. See [guided decoding](evaluation.md#guided-decoding)."""
    batch_size: int = Field(16, ge=1, le=65_536)
    """Number of prompts that are generated together. vLLM is given 512 at a time and does its own batching."""
    gpus_per_model: int | None = Field(None, ge=1, le=1024)
    """Number of accelerators of one node that share a model: layer by layer with transformers, tensor parallel with
    vLLM.
    Default: one, if workers have accelerators."""
    limit: int | None = Field(None, ge=1, le=MAX_ROWS)
    """Maximum number of examples per test set, from the first one on."""
    answer_check: AnswerCheck = "auto"
    """Deterministic comparison of an answer with its reference: `exact` text, `numeric`, `math` (symbolic), `option`
    (letter or text), `label`, `json`, `tool_call` (name and arguments), or one of `{regex}`, `{labels}`,
    `{json_fields}`, `{function}`. `auto` chooses by the contract's check of the segment, and otherwise by the data
    set."""
    answer_checks: dict[str, AnswerCheck] = Field(default_factory=dict)
    """Comparisons for individual key segments, by segment name."""
    judge: JudgeConfig | None = None
    """Language models that judge the answers. Default: the deterministic comparison decides."""
    alpha: float = Field(0.7, ge=0, le=1)
    """Weight of accuracy in score = alpha * accuracy + (1 - alpha) * format. The paper uses 0.7."""
    num_workers: int | None = Field(None, ge=1, le=MAX_WORKERS)
    """Number of generation actors. Default: as many as fit on the accelerators of the training ranks, or one per
    rank."""
    capabilities: CapabilitiesConfig | None = None
    """Tasks that the base model and the model of every strategy solve, to see what the training made them forget.
    Default: none."""
    swapped_reasoning: int = Field(0, ge=0, le=10_000)
    """Number of questions per test set that each model also answers after the reasoning of another question, to see
    whether its answers follow the reasoning or the prompt; 0 measures nothing. See
    [swapped reasoning](evaluation.md#swapped-reasoning)."""

    @model_validator(mode="after")
    def endpoint_goes_with_its_backend(self) -> Self:
        """The backend and the server must be given together."""
        if (self.backend == "endpoint") != (self.endpoint is not None):
            raise ValueError("backend: endpoint needs endpoint: {url, model}, and endpoint needs backend: endpoint")
        if self.endpoint is not None and self.endpoint.api == "chat" and self.stop_at == "closing_tag":
            raise ValueError("stop_at: closing_tag needs endpoint.api: completions")
        return self

    @model_validator(mode="after")
    def begun_responses_need_a_loaded_model(self) -> Self:
        """A response is continued from exact token ids, which not every server accepts."""
        if self.swapped_reasoning and self.backend == "endpoint":
            raise ValueError(
                "swapped_reasoning needs backend: transformers or vllm, because servers may encode the beginning of a "
                "response differently; set swapped_reasoning: 0, or choose one of these backends"
            )
        return self
