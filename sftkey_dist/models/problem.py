"""What transformers says when it cannot load something, in a line."""

_MOST_CHARACTERS = 300


def loading_problem(error: Exception) -> str:
    """One line; of a model with code of its own, what to do."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:
        return "it ships code of its own; read that code, and set model.trust_remote_code=true if you trust it"
    return text[:_MOST_CHARACTERS]
