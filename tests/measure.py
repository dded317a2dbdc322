"""``python -m tests.measure``: the measures of the package's code beside their limits; fails when one is exceeded."""

import ast
import io
import statistics
import sys
import tokenize
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "sftkey_dist"
MAX_LINES_OF_A_FUNCTION, MAX_LINES_OF_A_FILE = 60, 300
UNTYPED_READERS = {"read_json", "read_records"}
"""What gives a file back as dictionaries."""
READ_NO_FILE_OF_OURS_UNTYPED = {"run_dir", "models"}
"""`run_dir` makes typed records of our files; `models` reads those of Hugging Face folders."""


@dataclass(frozen=True)
class Source:
    """A file of the package; its name is that of the module, below the package."""

    name: str
    text: str
    tree: ast.Module

    @property
    def folder(self) -> str:
        """Of the package, or the module itself where it is in none."""
        return self.name.partition(".")[0]

    @property
    def num_lines(self) -> int:
        return len(self.text.splitlines())


@dataclass(frozen=True)
class Measure:
    """A value, what it may be at most or must be at least, and the places that a reader would look at."""

    name: str
    value: float
    most: float | None = None
    least: float | None = None
    unit: str = ""
    places: list[str] = field(default_factory=list)

    @property
    def is_kept(self) -> bool:
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    @property
    def verdict(self) -> str:
        limits = [
            f"{word} {limit:g}"
            for word, limit in (("at most", self.most), ("at least", self.least))
            if limit is not None
        ]
        return " and ".join(limits) + (": ok" if self.is_kept else ": EXCEEDED") if limits else ""


def main() -> int:
    """Print every measure; the exit status is 1 when a limit is exceeded."""
    measures = measures_of(read_sources())
    for measure in measures:
        print(f"{measure.name:<58}{measure.value:>8.4g} {measure.unit:<6}{measure.verdict}")
        for place in measure.places:
            print(f"    {place}")
    return int(not all(measure.is_kept for measure in measures))


def read_sources(package: Path = PACKAGE) -> list[Source]:
    return [read_source(package, file) for file in sorted(package.rglob("*.py"))]


def read_source(package: Path, file: Path) -> Source:
    text = file.read_text(encoding="utf-8")
    parts = file.relative_to(package).with_suffix("").parts
    return Source(".".join(part for part in parts if part != "__init__"), text, ast.parse(text))


def measures_of(sources: list[Source]) -> list[Measure]:
    return [
        *function_lengths(sources),
        long_files(sources),
        modules_in_cycles(sources),
        untyped_reads(sources),
        any_per_thousand_lines(sources),
        share_of_comments(sources, "sampler"),
    ]


def function_lengths(sources: list[Source]) -> list[Measure]:
    lengths = {
        f"{source.name}.{node.name}:{node.lineno}": node.end_lineno - node.lineno + 1
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    }
    long = sorted(
        (name for name in lengths if lengths[name] > MAX_LINES_OF_A_FUNCTION), key=lambda name: -lengths[name]
    )
    places = [f"{name}: {lengths[name]}" for name in long]
    return [
        Measure("longest function", max(lengths.values()), most=MAX_LINES_OF_A_FUNCTION, unit="lines", places=places),
        Measure("median function", statistics.median(lengths.values()), unit="lines"),
        Measure("90th percentile of functions", statistics.quantiles(lengths.values(), n=10)[-1], unit="lines"),
    ]


def long_files(sources: list[Source]) -> Measure:
    long = sorted((s for s in sources if s.num_lines > MAX_LINES_OF_A_FILE), key=lambda s: -s.num_lines)
    places = [f"{source.name}: {source.num_lines}" for source in long]
    return Measure(f"files over {MAX_LINES_OF_A_FILE} lines", len(long), most=3, places=places)


def modules_in_cycles(sources: list[Source]) -> Measure:
    """Counts imports in functions too."""
    names = {source.name for source in sources}
    imports = {source.name: imports_of(source, names) for source in sources}
    places = sorted(name for name in names if name in reachable_from(name, imports))
    return Measure("modules that import themselves through others", len(places), most=0, places=places)


def imports_of(source: Source, modules: set[str]) -> set[str]:
    """The modules of the package that a module imports anywhere."""
    found = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    inside = {name.removeprefix("sftkey_dist.") for name in found if name.startswith("sftkey_dist.")}
    return {name if name in modules else name.rpartition(".")[0] for name in inside} - {source.name}


def reachable_from(start: str, imports: dict[str, set[str]]) -> set[str]:
    """Modules that a module imports, directly or through others; itself where it is in a cycle."""
    seen: set[str] = set()
    open_ = list(imports[start])
    while open_:
        name = open_.pop()
        if name not in seen:
            seen.add(name)
            open_ += imports[name]
    return seen


def untyped_reads(sources: list[Source]) -> Measure:
    """Approximates reads by string keys: each begins with a file that is read as dictionaries."""
    outside = [source for source in sources if source.folder not in READ_NO_FILE_OF_OURS_UNTYPED]
    places = [f"{source.name}:{line}" for source in outside for line in calls_of(source.tree, UNTYPED_READERS)]
    return Measure("reads of our own files without a type, outside run_dir", len(places), most=0, places=places)


def calls_of(tree: ast.AST, functions: set[str]) -> list[int]:
    """The lines on which one of the functions is called by its name."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return sorted(call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id in functions)


def any_per_thousand_lines(sources: list[Source]) -> Measure:
    used = [
        isinstance(node, ast.Name) and node.id == "Any" for source in sources for node in ast.walk(source.tree)
    ].count(True)
    return Measure("`Any` per 1,000 lines", 1000 * used / sum(source.num_lines for source in sources), most=7.2)


def share_of_comments(sources: list[Source], folder: str) -> Measure:
    """Comments alone on a line and behind code, per line of the files; docstrings are not comments."""
    inside = [source for source in sources if source.folder == folder]
    comments = sum(
        token.type == tokenize.COMMENT
        for source in inside
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline)
    )
    share = 100 * comments / sum(source.num_lines for source in inside)
    return Measure(f"comments in {folder}/", share, least=3, unit="%")


if __name__ == "__main__":
    sys.exit(main())
