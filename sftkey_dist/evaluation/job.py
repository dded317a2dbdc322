"""The job of an evaluation: a model folder, and how its outputs are generated and judged."""

from collections.abc import Sequence
from dataclasses import dataclass

from sftkey_dist.data.example import Example
from sftkey_dist.digests import digest_json
from sftkey_dist.evaluation.settings import EvaluationSettings


@dataclass(frozen=True)
class EvaluationJob(EvaluationSettings):
    """A model folder and how to evaluate it."""

    model_dir: str
    strategy: str


def generation_digest(job: EvaluationJob, model_digest: str, examples: Sequence[Example]) -> str:
    """Digest of everything that a generation depends on, except the batch size."""
    server = job.settings.endpoint
    return digest_json(
        {
            "model": model_digest,
            "prompt": job.prompt.model_dump(mode="json"),
            "decoding": job.decoding.inputs,
            "backend": job.settings.backend,
            "server": [server.url, server.model, server.api] if server else None,
            "prompts": [
                (e.data_set, e.id, e.prompt, [(turn.role, turn.content) for turn in e.history]) for e in examples
            ],
            **_further(examples),
        }
    )


def _further(examples: Sequence[Example]) -> dict[str, object]:
    """What few prompts have. It is left out without any, so that digests equal those from before it existed."""
    are_unique = len({e.id for e in examples}) == len(examples)
    found: dict[str, dict[str, object]] = {"template_arguments": {}, "tools": {}, "messages": {}}
    for e in examples:
        name = e.id if are_unique else f"{e.data_set} {e.id}"
        if e.template_arguments:
            found["template_arguments"][name] = dict(e.template_arguments)
        if e.tools:
            found["tools"][name] = list(e.tools)
        if e.tool_turns or any(turn.fields for turn in e.history):
            found["messages"][name] = [turn.message for turn in e.turns]
    return {name: of_rows for name, of_rows in found.items() if of_rows}
