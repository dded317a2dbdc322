"""Hooks of mkdocs: pages that stand outside `docs/`, such as RESULTS.md, are pages of the site too.

The source files that pages link to are copied to the site.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[1]
PAGES_OF_THE_REPOSITORY = (
    "RESULTS.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "launch/README.md",
    "tests/accelerator/results/h100/README.md",
    *(str(figure.relative_to(ROOT)) for figure in sorted(ROOT.glob("tests/evidence/*/*.svg"))),
)


def on_files(files: Files, config: Any) -> Files:
    """Below `repository/` lies what pages link to, as it lies in the repository."""
    for name in PAGES_OF_THE_REPOSITORY:
        files.append(File.generated(config, f"repository/{name}", abs_src_path=str(ROOT / name)))
    for name in sorted(_linked_sources()):
        file = File.generated(config, f"repository/{name}", abs_src_path=str(ROOT / name))
        file.inclusion = InclusionLevel.INCLUDED  # in spite of exclude_docs
        files.append(file)
    return files


def _linked_sources() -> set[str]:
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")]
    return {name for page in pages for name in re.findall(r"\]\(\.\./(sftkey_dist/[\w/]+\.py)\)", page)}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they work in the repository become links of the site."""
    if page.file.src_uri.startswith("repository/"):
        return re.sub(r"\]\(docs/", "](../", markdown)
    return re.sub(r"\]\(\.\./", "](repository/", markdown)
