"""lm-evaluation-harness's own code on pairs from standard input, for an interpreter that has ``lm-eval[math]``.

It runs in an environment of its own, since the harness needs another release of antlr4 than this project. Each line of
the input is ``[check, answer, reference]``; each line of the output says by task whether the two are equal.
"""

import json
import sys
from importlib.resources import files
from typing import Any

import yaml
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter
from lm_eval.tasks.minerva_math.utils import (
    get_unnormalized_answer,
    is_equiv,
    last_boxed_only_string,
    normalize_final_answer,
    remove_boxed,
)

from tests.benchmarks.answers.isolated import Isolated

_LIMIT_SECONDS = 10
_IGNORED = ("regexes_to_ignore", "ignore_case", "ignore_punctuation")
_NO_FORM = "[invalidanswer]"


def main() -> None:
    gsm8k = yaml.safe_load((files("lm_eval.tasks") / "gsm8k" / "gsm8k.yaml").read_text(encoding="utf-8"))
    with Isolated(minerva_equal, _LIMIT_SECONDS) as are_equal:
        for line in sys.stdin:
            check, *texts = json.loads(line)
            found = gsm8k_equal(gsm8k, *texts) if check == "numeric" else {"minerva_math": are_equal(*texts)}
            print(json.dumps(found))


def gsm8k_equal(task: dict[str, Any], answer: str, reference: str) -> dict[str, bool]:
    """By the task's filters, with its metric."""
    metric = {name: value for name, value in task["metric_list"][0].items() if name in _IGNORED}
    equal = {}
    for chain in task["filter_list"]:
        options = {name: value for name, value in chain["filter"][0].items() if name != "function"}
        [[extracted]] = RegexFilter(**options).apply([[answer]], [{}])
        score = exact_match_hf_evaluate([extracted], [reference], **metric)["exact_match"]
        equal[f"gsm8k {chain['name']}"] = bool(score)
    return equal


def minerva_equal(answer: str, reference: str) -> bool:
    """By the task's normalisation; an answer that lacks the form asked for in the prompt is taken as it stands."""
    return bool(is_equiv(_normalised(answer), _normalised(reference)))


def _normalised(text: str) -> str:
    in_form = get_unnormalized_answer(text)
    text = text if in_form == _NO_FORM else in_form
    boxed = last_boxed_only_string(text)
    return str(normalize_final_answer(remove_boxed(boxed) if boxed else text))


if __name__ == "__main__":
    main()
