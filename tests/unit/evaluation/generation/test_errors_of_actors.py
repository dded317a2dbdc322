"""What a failing actor of an evaluation comes to: an error of the user's, or one line that says what is kept."""

from collections.abc import Iterator

import pytest
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from sftkey_dist.errors import IncompleteEvaluationError, ModelError
from sftkey_dist.evaluation.generation.fan_out import _errors_named


def failing(error: RayError) -> Iterator[str]:
    yield "a result"
    raise error


def raised(error: Exception) -> RayTaskError:
    return RayTaskError("generate", "Traceback …\nat a line", error)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (raised(ModelError("no weights")), ModelError, "^no weights$"),
        (
            raised(MemoryError("CUDA out of memory.\nTried to allocate 2 GiB")),
            IncompleteEvaluationError,
            "^MemoryError: CUDA out of memory. Tried to allocate 2 GiB; lower evaluation.batch_size .*is kept$",
        ),
        (raised(ValueError("a bug")), IncompleteEvaluationError, "^ValueError: a bug; what was generated is kept$"),
        (ActorDiedError(), IncompleteEvaluationError, "^an actor was lost .*; what was generated is kept$"),
    ],
)
def test_an_actor_that_fails_is_an_error_of_one_line_after_its_results(error, kind, said):
    results = _errors_named(failing(error))
    assert next(results) == "a result"
    with pytest.raises(kind, match=said):
        next(results)
