"""What is measured on examples that no stage trains on."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sftkey_dist.config.section import MAX_STEPS, Section


class GuardConfig(Section):
    """Evaluation on held-out examples in every stage that continues from another one and leaves part of the response
    untrained, and in every stage with `interpolate`. Such a stage can unlearn how to respond."""

    every_steps: int = Field(25, ge=1, le=MAX_STEPS)
    """Number of optimizer steps between evaluations. The first and the last model of the stage are evaluated too."""
    num_examples: int = Field(50, ge=1, le=10_000_000)
    """Number of held-out examples to evaluate."""
    signal: Literal["generation", "teacher_forced"] = "generation"
    """What is scored. `generation`: responses that a whole copy of the model on every rank's accelerator generates,
    scored as in the evaluation. `teacher_forced`: predictions after the reference's text, without generation and
    without a copy, for models that do not fit on one accelerator during training. Accuracy is then the share of tokens
    of the key segments that are predicted correctly (by argmax), and format the same for the tags and the end-of-turn
    token."""
    keep: Literal["best", "last"] = "best"
    """Model that the stage exports: the last one, or the one with the best score, alpha * accuracy + (1 - alpha) *
    format. Of equal scores the earliest model is kept."""
    patience: int | None = Field(None, ge=1, le=MAX_STEPS)
    """Number of evaluations without a better score after which the stage ends. Default: the stage runs to its end."""

    @property
    def decides(self) -> bool:
        """Whether the stage's result depends on the scores."""
        return self.keep == "best" or self.patience is not None


class ValidationConfig(Section):
    """Measurements on held-out examples."""

    num_examples: int = Field(0, ge=0, le=10_000_000)
    """Number of training examples that every stage holds out, chosen by their prompts; 0 holds out none."""
    every_steps: int = Field(50, ge=1, le=MAX_STEPS)
    """Number of optimizer steps between measurements of every segment's nll on the held-out examples. They are also
    measured before the first step and after the last one."""
    guard: GuardConfig | None = None
    """Measure accuracy, format and score during a stage; `validation.guard={}` uses the defaults."""

    @model_validator(mode="after")
    def guard_has_examples(self) -> Self:
        """The guard needs held-out examples."""
        if self.guard and self.guard.num_examples > self.num_examples:
            raise ValueError(
                f"validation.guard.num_examples={self.guard.num_examples} exceeds validation.num_examples="
                f"{self.num_examples}: hold out more examples, or guard with fewer"
            )
        return self
