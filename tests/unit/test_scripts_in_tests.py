"""Programs that tests write into strings use names that the package has: no type checker reads them."""

import ast
import pkgutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILLED_IN = "filled_in"


def strings_of(tree: ast.AST) -> Iterator[str]:
    """String literals; what an f-string fills in becomes a name, which may stand for an expression or a part of one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else FILLED_IN for part in node.values)


def programs_of(file: Path) -> Iterator[ast.Module]:
    """What parses as Python and imports the package; sentences and parts of longer strings do not."""
    for text in strings_of(ast.parse(file.read_text(encoding="utf-8"))):
        if "sftkey_dist" in text and "import" in text:
            try:
                yield ast.parse(textwrap.dedent(text))
            except SyntaxError:
                continue


def names_of(program: ast.Module) -> Iterator[str]:
    """Dotted names of the package that a program imports, and of the attributes of what it imports."""
    imported: dict[str, str] = {}
    for node in ast.walk(program):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    yield from (name.removesuffix(".*") for name in imported.values())
    for node in ast.walk(program):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            yield f"{imported[node.value.id]}.{node.attr}"


def missing_names(program: ast.Module) -> list[str]:
    ours = (name for name in names_of(program) if name.split(".")[0] == "sftkey_dist" and FILLED_IN not in name)
    return [name for name in ours if not exists(name)]


def exists(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


OF_OTHER_PACKAGES = ("test_scripts_in_tests.py", "test_measure.py")
"""Their programs name modules that they make up."""
FILES = [file for file in sorted(TESTS.rglob("*.py")) if file.name not in OF_OTHER_PACKAGES and any(programs_of(file))]


def test_programs_are_found():
    assert {"test_lock.py", "test_store.py", "test_study.py"} <= {file.name for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_names_in_a_program_exist(file):
    assert [name for program in programs_of(file) for name in missing_names(program)] == []


@pytest.mark.parametrize(
    ("program", "missing"),
    [
        ("from sftkey_dist.run_dir.lock import locked", []),
        ("from sftkey_dist.sampler import *\nimport json\njson.no_such_name", []),
        ("from sftkey_dist import lock", ["sftkey_dist.lock"]),
        ("import sftkey_dist.locks", ["sftkey_dist.locks"]),
        ("from sftkey_dist.run_dir import lock\nlock._RENAMED = 1", ["sftkey_dist.run_dir.lock._RENAMED"]),
    ],
)
def test_what_was_renamed_is_found(program, missing):
    assert missing_names(ast.parse(program)) == missing
