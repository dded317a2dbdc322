"""Guided decoding: what constrains a response to the format of its contract, for every backend.

This module loads no library that constrains.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sftkey_dist.contract import ContractError, Form, ResponseContract, Violation
from sftkey_dist.contract.grammar import GRAMMAR_VERSION, response_grammar
from sftkey_dist.contract.json_schema import schema_problem
from sftkey_dist.contract.response_schema import response_schema
from sftkey_dist.errors import DataError

if TYPE_CHECKING:
    from sftkey_dist.data.prompt import PromptEncoder

_NOT_IN_SCHEMA = (Violation.EMPTY, Violation.INVALID_VALUE)
"""What the schema lets pass: blank texts, and checks that it cannot express."""


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
        """How a complete response of a server breaks the constraint that it was sent; "" if it does not."""
        parsed = self.contract.parse(text, self.form)
        if self.schema is None or parsed.violation not in (None, *_NOT_IN_SCHEMA):
            return f"{parsed.violation}: {parsed.detail}" if parsed.violation else ""
        return schema_problem(text, self.schema) or ""
