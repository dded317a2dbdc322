"""What an evaluation is told: a model folder, and how its outputs are made and judged."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sftkey_dist.data.example import Example
from sftkey_dist.digests import digest_json
from sftkey_dist.evaluation.assessment import Assessment


@dataclass(frozen=True)
class EvaluationJob(Assessment):
    """A model folder and how to test it."""

    model_dir: str
    strategy: str


def generation_digest(job: EvaluationJob, model_digest: str, examples: Sequence[Example]) -> str:
    """Digest of everything a generation depends on but the size of batches."""
    server = job.settings.endpoint
    return digest_json(
        {
            "model": model_digest,
            "prompt": job.prompt.model_dump(mode="json"),
            "decoding": asdict(job.decoding),
            "backend": job.settings.backend,
            "server": [server.url, server.model, server.api] if server else None,
            "prompts": [
                (e.data_set, e.id, e.prompt, [(turn.role, turn.content) for turn in e.history]) for e in examples
            ],
        }
    )
