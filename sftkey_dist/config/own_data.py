"""The training data of a stage that are responses of the model itself, not those of the references."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from sftkey_dist.config.section import Section, zero_or_from


class OwnDataConfig(Section):
    """Responses that the model of the stage before samples to the training prompts, in place of the references'
    (arXiv:2503.04381). Held-out examples keep their references."""

    model_config = ConfigDict(serialize_by_alias=True)

    from_: Literal["previous"] = Field(alias="from")
    """Whose responses are trained: `previous` stands for the model that the stage before has handed on."""
    samples: int = Field(4, ge=1, le=1024)
    """Number of responses that are sampled for each row. The first accepted one is trained, so that every row counts
    once, however easy it is."""
    accept: Literal["correct"] = "correct"
    """Which responses are accepted: `correct` stands for those that end, keep the contract, and have the right answer
    by the deterministic check of the row's source. No judge is asked."""
    otherwise: Literal["reference", "skip"] = "reference"
    """What becomes of a row without an accepted response: it keeps its reference, or is left out and counted. The stage
    has the planned number of steps in both cases."""
    temperature: Annotated[float, zero_or_from(1e-3)] = Field(1.0, ge=0, le=100)
    """Sampling temperature; 0 is greedy decoding, which needs `samples: 1`. Length, batches and backend are those of
    `evaluation`."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Probability mass of nucleus sampling."""

    @model_validator(mode="after")
    def several_samples_differ(self) -> Self:
        """Greedy responses to the same prompt are identical."""
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("temperature: 0 makes all samples identical; set samples: 1, or a temperature above 0")
        return self
