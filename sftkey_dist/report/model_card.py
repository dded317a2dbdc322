"""The model card of an exported model: what it is, how it was trained, and how it scored."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from sftkey_dist.contract import Form
from sftkey_dist.contract.response_schema import RESPONSE_SCHEMA
from sftkey_dist.report.comparison_row import ComparisonRow
from sftkey_dist.report.markdown import escaped, forgetting_lines, table
from sftkey_dist.report.numbers import GUIDED, bounds_note, samples_note, unjudgeable_note, with_interval, yield_note
from sftkey_dist.report.provenance import RunFacts
from sftkey_dist.report.same_model import kept_in_words
from sftkey_dist.report.stage_cost import StageCost
from sftkey_dist.run_dir import RunDir
from sftkey_dist.run_dir.artifacts.run import SETTINGS, read_strategies


def model_card(
    row: ComparisonRow, facts: RunFacts, *, place: str = ".", library: str = "transformers", same: str = ""
) -> str:
    """The README.md of a strategy's model folder.

    Args:
        row: the strategy and its scores.
        facts: of the run.
        place: the folder, or its name on the hub, from which the card's example loads the model.
        library: the library that loads it, as the hub calls it.
        same: a sentence about whose weights the model has, if they are not its own.
    """
    scores = row.scores
    return "\n".join(
        [
            *_front_matter(row, facts, library),
            f"# {escaped(row.strategy)} of run {escaped(facts.name)}",
            "",
            f"Fine-tuned from {escaped(_base(facts) or _without_name(facts))} by `sftkey_dist` with strategy "
            f"**{escaped(row.strategy)}** (SFTKey-Tag, arXiv:2512.21017).",
            "",
            *_usage(row, facts, place),
            "## Training",
            "",
            *table(["stage", "steps", "tokens", "loss tokens", "ranks", "seconds"], list(map(_cells, row.stages))),
            "",
            *([escaped(same), ""] if same else []),
            *(line for stage in row.stages for line in [*_own_responses(stage), *_guard(stage)]),
            *_lines("Data", facts.data),
            *_lines("Environment", [f"{name}: {value}" for name, value in facts.environment.items()]),
            f"## Evaluation on {escaped(row.dataset)}",
            "",
            *([f"- {GUIDED}"] if row.guided else []),
            f"- accuracy {with_interval(scores.accuracy, scores.accuracy_interval)}",
            f"- format {with_interval(scores.format, scores.format_interval)}",
            f"- score {with_interval(scores.score, scores.score_interval)} "
            f"({scores.alpha:g} accuracy + {1 - scores.alpha:g} format)",
            f"- {scores.n:,} outputs, {scores.unjudged} unjudged, {scores.truncated} cut off",
            *([f"- {note}"] if (note := samples_note(scores)) else []),
            *([f"- {bounds_note(scores)}"] if scores.unjudged else []),
            *([f"- {escaped(unjudgeable_note(scores))}"] if scores.unjudgeable else []),
            *(f"- {count} outputs broke the contract: {reason}" for reason, count in scores.violations.items()),
            "",
            *_forgetting(row),
            "Brackets are 95 % intervals. What the model was not tested on is not known.",
            "",
        ]
    )


def _forgetting(row: ComparisonRow) -> list[str]:
    lines = forgetting_lines({row.strategy: row.forgetting})
    return ["## Beside the base model", "", *lines, ""] if lines else []


def _usage(row: ComparisonRow, facts: RunFacts, place: str) -> list[str]:
    """Lines of Python that load the model and let it answer a prompt as it was trained."""
    settings = facts.settings
    is_chat = (row.stage_dirs()[-1].model / "chat_template.jinja").is_file()
    if is_chat and settings.get("prompt.template") != '"plain"':
        system = settings.get("prompt.system", "null")
        first = "" if system == "null" else f'{{"role": "system", "content": {system}}}, '
        prompt = [
            f'messages = [{first}{{"role": "user", "content": "…"}}]',
            "inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, "
            'return_tensors="pt")',
        ]
    else:
        template = settings.get("prompt.plain", '"{prompt}"')
        prompt = [f'inputs = tokenizer({template}.replace("{{prompt}}", "…"), return_tensors="pt")']
    return [
        "## Use",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'folder = "{place}"' + ("  # this one" if place == "." else ""),
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "model = AutoModelForCausalLM.from_pretrained(folder)  # transformers 5 or newer",
        *prompt,
        f"output = model.generate(**inputs, max_new_tokens={settings.get('evaluation.max_new_tokens', '256')})",
        'text = tokenizer.decode(output[0][inputs["input_ids"].shape[1] :])',
        "print(text)",
        "```",
        "",
        *_reading(row),
        *_format(row),
    ]


def _reading(row: ComparisonRow) -> list[str]:
    """Lines of Python that take the key segments out of a response with tags."""
    run = RunDir(Path(row.run_dir))
    contract, form = SETTINGS.read(run.config).contract, read_strategies(run)[row.strategy].form
    if contract.container != "tags" or form != Form.TAGGED:
        return []
    shape = "".join(f"{segment.opening}…{segment.closing}" for segment in contract.segments)
    lines = [
        f'print(re.findall(r"{segment.opening}(.*?){segment.closing}", text, re.DOTALL))  # {segment.name}'
        for segment in contract.key_segments
    ]
    return [
        f"Responses have the form `{shape}`. What counts in them:",
        "",
        "```python",
        "import re",
        "",
        *lines,
        "```",
        "",
    ]


def _format(row: ComparisonRow) -> list[str]:
    """How to have a server constrain responses, if they are JSON objects."""
    if not (row.stage_dirs()[-1].model / RESPONSE_SCHEMA).is_file():
        return []
    return [
        f"A response is a JSON object with the schema in `{RESPONSE_SCHEMA}`. Servers that constrain responses, such "
        "as vLLM, keep to it:",
        "",
        "```python",
        f'schema = {{"name": "response", "schema": json.load(open("{RESPONSE_SCHEMA}"))}}',
        'response_format = {"type": "json_schema", "json_schema": schema}',
        "client.chat.completions.create(model=…, messages=messages, response_format=response_format)",
        "```",
        "",
    ]


def _cells(stage: StageCost) -> list[str]:
    counts = (stage.steps, stage.tokens, stage.loss_tokens, stage.world_size)
    return [stage.name, *(f"{count:,}" for count in counts), f"{stage.train_seconds:,.0f}"]


def _own_responses(stage: StageCost) -> list[str]:
    """What the stage was trained on, if that is the model's own responses."""
    return [f"Stage {escaped(stage.name)}: {yield_note(stage.own_responses)}.", ""] if stage.own_responses else []


def _guard(stage: StageCost) -> list[str]:
    """Which model of the stage its guard kept."""
    kept = kept_in_words(stage)
    return [f"{escaped(kept[0].upper() + kept[1:])}.", ""] if kept else []


def _front_matter(row: ComparisonRow, facts: RunFacts, library: str) -> list[str]:
    base = {"base_model": _base(facts)} if _base(facts) else {}
    content = {"library_name": library, **base, "tags": ["sftkey", row.strategy]}
    return ["---", *yaml.safe_dump(content, sort_keys=False, allow_unicode=True).splitlines(), "---", ""]


def _base(facts: RunFacts) -> str | None:
    """The base model's name on the hub; None for a folder, whose path says nothing to others."""
    return None if facts.is_local_model else facts.model


def _without_name(facts: RunFacts) -> str:
    return "a model of a local folder" if facts.model else "a small embedded model"


def _lines(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *(f"- {escaped(line)}" for line in lines), ""] if lines else []
