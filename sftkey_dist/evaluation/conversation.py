"""What was asked, as a judge and a person read it."""

from sftkey_dist.data.example import Turn
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord


def conversation_of(record: EvaluationRecord) -> str:
    """All that was said up to the response: the prompt, after the turns before it where there are any."""
    if not record.history:
        return record.prompt
    turns = [*record.history, Turn("user", record.prompt)]
    return "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in turns)
