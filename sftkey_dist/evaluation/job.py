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
    found: dict[str, dict[str, object]] = {
        "template_arguments": {e.id: dict(e.template_arguments) for e in examples if e.template_arguments},
        "tools": {e.id: list(e.tools) for e in examples if e.tools},
        "messages": {
            e.id: [turn.message for turn in e.turns]
            for e in examples
            if e.tool_turns or any(turn.fields for turn in e.history)
        },
    }
    return {name: of_rows for name, of_rows in found.items() if of_rows}
