"""README and docs say what is true: snippets are read and run, keys, commands, links and messages exist."""

import ast
import importlib.util
import itertools
import json
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
import typer
import yaml
from pydantic import BaseModel

import sftkey_dist
from sftkey_dist.cli import app
from sftkey_dist.config import RunConfig, is_study, is_tuning, load_config, load_section, load_study, load_tuning
from sftkey_dist.config.keys import keys_of
from sftkey_dist.config.segment import SegmentConfig
from sftkey_dist.config.study import StudyConfig
from sftkey_dist.config.tune import TuneConfig
from sftkey_dist.config.yaml_text import read_yaml
from sftkey_dist.data.adapters.layouts import make_adapter
from sftkey_dist.strategy import resolve_strategies
from tests.faults.test_table import TABLE
from tests.markdown import ROOT, Snippet, snippets_of

BASE = ROOT / "configs" / "quickstart.yaml"
REFERENCE = ROOT / "docs" / "configuration.md"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "launch/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
SECTIONS = ("model", "data", "contract", "prompt", "optimization", "key_stage", "training", "validation", "cluster")
KEY = re.compile(rf"(?:{'|'.join((*SECTIONS, 'evaluation', 'tracking', 'study', 'tune'))})(?:\.(?:[a-z_]+|<[a-z]+>))+")
WIDTH = 125


def snippets(*languages: str) -> list[Snippet]:
    return [found for page in PAGES for found in snippets_of(page) if found.language in languages]


def prose(page: Path) -> str:
    """Without code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def inline_code(page: Path) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))]


def parameters(*languages: str) -> list[Any]:
    found = snippets(*languages)
    assert found, f"no snippet in {languages} was found, so that nothing would be checked"
    return [pytest.param(snippet, id=str(snippet)) for snippet in found]


def test_every_fence_has_a_language_that_is_checked():
    known = {"yaml", "bash", "python", "json", "text"}
    assert {snippet.language for page in PAGES for snippet in snippets_of(page)} == known
    for page in PAGES:
        assert page.read_text(encoding="utf-8").count("```") == 2 * len(snippets_of(page)), page


@pytest.mark.parametrize("snippet", parameters("yaml"))
def test_yaml_is_a_valid_part_of_a_configuration(snippet, tmp_path):
    keys_are_merged_onto_the_quickstart(read_yaml(snippet.text), tmp_path)


def keys_are_merged_onto_the_quickstart(content: dict[str, Any], folder: Path) -> None:
    base, part = read_yaml(BASE.read_text(encoding="utf-8")), folder / "part.yaml"
    for section in ("model", "data"):  # a source or a model is one thing or another, and not merged
        if section in content:
            base[section] = {**base[section], **content[section]} if section == "data" else content[section]
    content = {key: value for key, value in content.items() if key not in ("model", "data")}
    (folder / "base.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    part.write_text(yaml.safe_dump(content or {"seed": 0}), encoding="utf-8")
    files = [folder / "base.yaml", part]
    if is_tuning(files):
        load_tuning(files)
        return
    for config in [run.config for run in load_study(files).runs] if is_study(files) else [load_config(files)]:
        if "strategies" in content or "contract" not in content:
            resolve_strategies(config)
        for source in (*config.data.train, *config.data.test):
            if source.adapter != "decision_memos":  # these are the base's own and generated
                make_adapter(source, config.contract)


@pytest.mark.parametrize("wrong", ["question: Does it help?, first: x", "data: {train: {adapter: gsm8x, path: a}}"])
def test_a_wrong_yaml_snippet_would_be_found(wrong, tmp_path):
    with pytest.raises(Exception, match=r"flow mapping|adapter"):
        keys_are_merged_onto_the_quickstart(read_yaml(f"{{{wrong}}}" if "first" in wrong else wrong), tmp_path)


def commands_of(snippet: str) -> Iterator[list[str]]:
    for line in snippet.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


@pytest.mark.parametrize("snippet", parameters("bash"))
def test_shell_commands_exist_with_their_options_and_overrides(snippet):
    for words in commands_of(snippet.text):
        check_command(words)


def check_command(words: list[str]) -> None:
    name, arguments = words[0], words[1:]
    if name.endswith("sftkey"):
        check_sftkey(arguments)
    elif name == "make":
        targets = [word for word in arguments if "=" not in word]
        assert set(targets) <= makefile_targets(), f"make {targets}"
    elif name.endswith(("python", "python3")) and arguments[:1] == ["-m"]:
        assert importlib.util.find_spec(arguments[1]) is not None, arguments[1]
    elif "/" in name and not name.startswith(".venv"):
        assert (ROOT / name).is_file(), name
    else:
        known = ("export", "git", "pip", "kubectl", "sbatch", "docker", "ray", "umask", "openssl", ".venv/bin/mlflow")
        assert name in known, name


def makefile_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w./-]*):(?!=)", text, re.MULTILINE))


def check_sftkey(arguments: list[str]) -> None:
    """The command line takes the arguments, and the schema the overrides among them."""
    command, path, rest = typer.main.get_command(app), ["sftkey"], list(arguments)
    while hasattr(command, "commands"):
        assert set(rest[:1]) & set(command.commands), f"{' '.join(path)} has no command {rest[:1]}"
        path.append(rest[0])
        command, rest = command.commands[rest[0]], rest[1:]
    context = command.make_context(" ".join(path), rest)
    configuration = context.params.get("configuration") or []
    overrides = [item for item in configuration if "=" in item and "/" not in item.partition("=")[0]]
    files = [ROOT / item for item in configuration if item not in overrides and (ROOT / item).is_file()]
    if path[1] == "segment":
        load_section(SegmentConfig, files, overrides)
    elif is_study(files):
        load_study(files, overrides)
    elif path[1] == "tune" and files:
        load_tuning(files, overrides)
    elif configuration:
        load_config(files if any("contracts" not in str(file) for file in files) else [BASE, *files], overrides)
        assert len(files) == len(configuration) - len(overrides) - configuration.count("CONFIG") - configuration.count(
            "my.yaml"
        ), f"no such file among {configuration}"


@pytest.mark.parametrize(
    "wrong",
    [
        ["sftkey", "runs", "configs/quickstart.yaml"],
        ["sftkey", "run", "configs/quickstarts.yaml"],
        ["sftkey", "run", "configs/quickstart.yaml", "optimization.learning=1"],
        ["sftkey", "plan", "CONFIG", "--node", "4x"],
        ["sftkey", "job", "status"],
        ["make", "quickly"],
        ["launch/none.sh"],
        ["curl", "x"],
    ],
)
def test_a_wrong_command_would_be_found(wrong):
    with pytest.raises((Exception, SystemExit)):
        check_command(wrong)


@pytest.mark.parametrize("snippet", parameters("python"))
def test_python_compiles_and_imports_what_exists(snippet):
    """Without importing it, which takes ten seconds. The tests of the pages run some of the examples."""
    for node in ast.walk(ast.parse(snippet.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sftkey_dist"):
            assert {alias.name for alias in node.names} <= names_in(node.module), node.module


def names_in(module: str) -> set[str]:
    """What a module defines at its top, or imports."""
    path = ROOT / module.replace(".", "/")
    tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {alias.asname or alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names}
    return names | {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}


@pytest.mark.parametrize("snippet", parameters("json"))
def test_json_is_json(snippet):
    assert json.loads(snippet.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_stands_in_backticks_exists(page):
    for code in inline_code(page):
        key = code.partition("=")[0].partition(":")[0].strip()
        if KEY.fullmatch(key):
            assert re.sub("<[a-z]+>", "<name>", key) in every_key(), f"{page.name}: there is no key {key}"
        if code.startswith("sftkey ") and (verb := code.split()[1]).islower():
            assert verb in typer.main.get_group(app).commands, f"{page.name}: {code}"
        if code.startswith("make ") and (target := code.split()[1]).islower():
            assert target in makefile_targets(), f"{page.name}: {code}"
        if code.startswith("python -m "):
            assert importlib.util.find_spec(code.split()[2]) is not None, f"{page.name}: {code}"
        if re.fullmatch(r"(?:configs|tests|launch|docs|docker|requirements|sftkey_dist)/[\w./-]*", code):
            assert (ROOT / code).exists(), f"{page.name}: there is no {code}"
        if re.fullmatch(r"[a-z_]+(?:/[a-z_]+)*/|[a-z_]+(?:/[a-z_]+)+\.py", code):
            assert (ROOT / "sftkey_dist" / code).exists() or (ROOT / code).exists(), f"{page.name}: there is no {code}"


def test_the_table_of_commands_has_every_command():
    table = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `sftkey ([^`]*)`", table, re.MULTILINE)
    named = {" ".join(itertools.takewhile(str.islower, row.split())) for row in rows}
    assert named == set(_commands(typer.main.get_command(app)))


def _commands(command: Any, before: str = "") -> Iterator[str]:
    for name, inner in command.commands.items():
        yield from _commands(inner, f"{before}{name} ") if hasattr(inner, "commands") else [f"{before}{name}"]


# Links


def anchors_of(page: Path) -> set[str]:
    """As GitHub and the site's generator make them, which agree on the headings here."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.replace("`", "").lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", prose(page)):
        assert text or page.name == "README.md", f"a link without a text: {target}"
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} leads nowhere"
        assert file.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors_of(file), f"{target}: no such heading"


def test_every_page_is_in_the_navigation_and_the_site_loads_nothing_from_a_network():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    groups = [next(iter(entry.values())) for entry in site["nav"]]
    pages = set(itertools.chain(*([group] if isinstance(group, str) else group for group in groups)))
    own = {page for page in pages if not page.startswith("repository/")}
    assert own == {page.name for page in PAGES if page.parent.name == "docs"}
    assert all((ROOT / page.removeprefix("repository/")).is_file() for page in pages - own)
    assert site["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css", "repo_url"} & set(site)
    for page in PAGES:
        assert not re.search(r"!\[[^\]]*\]\(http|<script|<img[^>]+http", page.read_text(encoding="utf-8")), page


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == version
    assert citation["references"][0]["url"].endswith("2512.21017")
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_package_says_that_it_is_typed():
    assert (Path(sftkey_dist.__file__).parent / "py.typed").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["sftkey_dist"]


@pytest.mark.parametrize(("workflow", "script"), [("ci", ".ci/run"), ("nightly", ".ci/audit")])
def test_workflows_call_the_scripts_of_ci(workflow, script):
    content = yaml.safe_load((ROOT / ".github" / "workflows" / f"{workflow}.yml").read_text(encoding="utf-8"))
    steps = [step for job in content["jobs"].values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == [script]
    assert os.access(ROOT / script, os.X_OK)
    assert content["permissions"] == {"contents": "read"}


def test_lines_are_short():
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
            assert len(line) <= WIDTH, f"{page.relative_to(ROOT)}:{number}"


# The reference


def module_of_docs(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def keys_below(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key with its description, found by the types and not by the JSON schema that the page is made from."""
    for name, field in keys_of(section).items():
        yield f"{prefix}{name}", field.description or ""
        for inner, between in _inner_sections(field.annotation):
            yield from keys_below(inner, f"{prefix}{name}.{between}")


@cache
def every_key() -> frozenset[str]:
    keys = [*keys_below(RunConfig), *keys_below(StudyConfig, "study."), *keys_below(TuneConfig, "tune.")]
    leaves = {key for key, _ in keys}
    values_of_mappings = {f"{key}.<name>" for key in ("evaluation.answer_checks", "study.variants")}
    return frozenset(leaves | values_of_mappings)


def _inner_sections(annotation: Any, between: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, between
    is_mapping = get_origin(annotation) is dict
    for inner in get_args(annotation)[1:] if is_mapping else get_args(annotation):
        if get_origin(annotation) is not None or isinstance(annotation, UnionType):
            yield from _inner_sections(inner, "<name>." if is_mapping else between)


@pytest.mark.parametrize(
    ("section", "prefix"),
    [(RunConfig, ""), (StudyConfig, "study."), (TuneConfig, "tune."), (SegmentConfig, "")],
)
def test_the_reference_has_every_key_with_its_description(section, prefix):
    page = " ".join(REFERENCE.read_text(encoding="utf-8").split())
    keys = list(keys_below(section, prefix))
    assert len(keys) > 10
    for key, description in keys:
        assert f"- `{key}`:" in page, f"{key} is missing: run `make docs`"
        assert " ".join(description.split()) in page, f"the description of {key} has changed: run `make docs`"


def test_the_reference_is_what_the_schema_says():
    assert module_of_docs("reference").render() == REFERENCE.read_text(encoding="utf-8"), "run `make docs`"


def test_the_figure_is_drawn_from_the_evidence(tmp_path):
    figures = module_of_docs("figures")
    assert figures.draw(tmp_path / "figure.svg").read_bytes() == figures.FIGURE.read_bytes(), "run `make docs`"


# Messages


def texts_of_the_sources() -> list[str]:
    """Every text in the code, what an f-string fills in as `…`."""
    return [
        " ".join(text.split())
        for file in (ROOT / "sftkey_dist").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (text := _text_of(node)) is not None
    ]


def _text_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def test_every_message_of_the_troubleshooting_page_is_one_of_ours():
    page = ROOT / "docs" / "troubleshooting.md"
    quoted = [" ".join(snippet.text.split()) for snippet in snippets_of(page) if snippet.language == "text"]
    assert len(quoted) > 25
    ours = texts_of_the_sources()
    for message in quoted:
        assert any(message in text for text in ours), message
    assert not any("no such message of ours" in text for text in ours)


def test_the_number_of_faults_is_that_of_the_table():
    assert f"names {len(TABLE)} faults" in (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
