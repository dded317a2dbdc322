"""What is watched on examples that no stage trains on."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sftkey_dist.config.section import MOST_STEPS, Section


class GuardConfig(Section):
    """Generation on held-out examples in every stage that continues from another and leaves part of the response
    untrained: such a stage can unlearn how to respond."""

    every_steps: int = Field(25, ge=1, le=MOST_STEPS)
    """Optimizer steps between evaluations; the model that the stage starts from and its last are evaluated too."""
    num_examples: int = Field(50, ge=1, le=10_000_000)
    """Held-out examples to generate for."""
    signal: Literal["generation", "teacher_forced"] = "generation"
    """What is scored. `generation`: responses of a whole copy of the model on every rank's accelerator, scored as the
    evaluation does. `teacher_forced`: no generation and no copy, for models that do not fit on one accelerator beside
    their training: accuracy is the share of the key segments' tokens, and format that of the tags and the end of turn,
    that are the likeliest ones after the reference's own text."""
    keep: Literal["best", "last"] = "best"
    """Model that the stage hands on: the last, or the one with the best score (alpha * accuracy + (1 - alpha) *
    format), of equals the earliest."""
    patience: int | None = Field(None, ge=1, le=MOST_STEPS)
    """End the stage after so many evaluations without a better score; by default it runs to its end."""

    @property
    def decides(self) -> bool:
        """Whether the stage's result depends on the scores."""
        return self.keep == "best" or self.patience is not None


class ValidationConfig(Section):
    """Held-out examples."""

    num_examples: int = Field(0, ge=0, le=10_000_000)
    """Training examples that every stage holds out, chosen by their prompts; 0 for none."""
    every_steps: int = Field(50, ge=1, le=MOST_STEPS)
    """Optimizer steps between measurements of every segment's nll on them; also before the first and after the last."""
    guard: GuardConfig | None = None
    """Watch accuracy, format and score; `validation.guard={}` takes the defaults."""

    @model_validator(mode="after")
    def guard_has_examples(self) -> Self:
        """The guard generates for held-out examples."""
        if self.guard and self.guard.num_examples > self.num_examples:
            raise ValueError(
                f"validation.guard.num_examples={self.guard.num_examples} exceeds validation.num_examples="
                f"{self.num_examples}: hold out more, or guard with fewer"
            )
        return self
