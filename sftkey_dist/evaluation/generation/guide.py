"""Guided decoding: what constrains a response to the format of its contract, for every backend.

This module loads no library that constrains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sftkey_dist.contract import ContractError, Form, ResponseContract
from sftkey_dist.contract.grammar import GRAMMAR_VERSION, response_grammar
from sftkey_dist.contract.json_schema import schema_problem
from sftkey_dist.contract.parts import THINKING_TAGS
from sftkey_dist.contract.response_schema import certain_schema, response_schema
from sftkey_dist.errors import DataError

if TYPE_CHECKING:
    from sftkey_dist.data.encoding.prompt import PromptEncoder


@dataclass(frozen=True)
class Guide:
    """Constrains responses to a contract in a form."""

    contract: ResponseContract
    form: Form

    @property
    def inputs(self) -> dict[str, object]:
        """What the constraint depends on, as plain values."""
        return {"version": GRAMMAR_VERSION, "contract": self.contract.of_form(self.form)}

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema of a response; None if it is no JSON object."""
        return response_schema(self.contract, self.form)

    def grammar(self, prompt: str, prompts: "PromptEncoder") -> str:
        """The grammar of a response that continues a prompt, up to and with the token that ends its turn.

        Args:
            prompt: the prompt as the model reads it, which may end with the first mark of the response.
            prompts: what wrote the prompt.

        Raises:
            DataError: no response of the contract can continue the prompt.
        """
        try:
            return response_grammar(
                self.contract,
                self.form,
                prompts.end_of_turn_id,
                prompts.special_tokens,
                partial(prompts.continued, prompt),
            )
        except ContractError as error:
            raise DataError(f"evaluation.guided=true: {error}") from None

    def breach(self, text: str) -> str:
        """How a complete response of a server breaks the constraint that it was sent; "" if it may have kept it."""
        if self.schema is not None:
            return schema_problem(text, certain_schema(self.contract)) or ""
        parsed = self.contract.parse(text, self.form)
        may_have_kept_it = self._has_schema_of_a_user and self._has_marks_in_order(text)
        return "" if parsed.violation is None or may_have_kept_it else f"{parsed.violation}: {parsed.detail}"

    @property
    def _has_schema_of_a_user(self) -> bool:
        """Whether a value is JSON whose strings can contain a mark, which no grammar prevents."""
        return any(segment.check and segment.check.json_schema is not None for segment in self.contract.segments)

    def _has_marks_in_order(self, text: str) -> bool:
        """Whether all marks of a response follow each other in a text, perhaps with others between them."""
        return any(
            _follow_each_other(text, [piece.text for piece in outline if piece.is_mark])
            for outline in self.contract.outlines(self.form)
        )


def _follow_each_other(text: str, marks: Sequence[str]) -> bool:
    place = 0
    for mark in marks:
        found = text.find(mark, place)
        if found >= 0:
            place = found + len(mark)
        elif mark.strip() not in THINKING_TAGS:  # with which the prompt may have ended
            return False
    return True
