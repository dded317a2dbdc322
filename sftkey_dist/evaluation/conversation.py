"""The conversation before a response, as judges and human reviewers read it."""

from sftkey_dist.data.example import Turn
from sftkey_dist.files import to_json
from sftkey_dist.run_dir.artifacts.evaluation import EvaluationRecord


def conversation_of(record: EvaluationRecord) -> str:
    """The prompt, with the messages before and after it if there are any."""
    if not record.history and not record.tool_turns:
        return record.prompt
    turns = [*record.history, Turn("user", record.prompt), *(record.tool_turns or ())]
    return "\n\n".join(f"[{turn.role}]\n{_text_of(turn)}" for turn in turns)


def _text_of(turn: Turn) -> str:
    return "\n".join(part for part in (turn.content, to_json(turn.tool_calls) if turn.tool_calls else "") if part)
