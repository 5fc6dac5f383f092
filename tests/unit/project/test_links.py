"""Links and paths in the documentation and the code lead to files that are there."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.checkout import ROOT, files_of

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(\s*<?(?![a-z]+:)([^)\s>]+)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
PATH = re.compile(
    r"(?<![\w-])(?:docs|writer|outbox|publisher|schema|observability|src|tests|examples|benchmarks)"
    r"/(?!\S*NNNN)[\w./-]+\.(?:md|py|sql)\b"
)


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub makes of a page's headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    plain = (re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", found) for found in HEADING.findall(text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def links() -> Iterator[tuple[Path, str]]:
    for page in files_of(ROOT, "*.md"):
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for link in LINK.findall(CODE.sub("", text)):
            yield page, link


def is_broken(page: Path, link: str) -> bool:
    path, _, fragment = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return True
    return bool(fragment) and target.suffix == ".md" and fragment not in anchors(target)


def test_every_relative_link_in_a_page_resolves() -> None:
    found = list(links())
    assert len(found) > 100
    assert [
        f"{page.relative_to(ROOT)}: {link}" for page, link in found if is_broken(page, link)
    ] == []


def test_every_file_that_a_text_names_by_its_path_is_there() -> None:
    named = [
        (path, name)
        for path in files_of(ROOT, "*.md", "*.py", "*.sql", "*.toml", "*.yml", "*.tf", "Makefile")
        for name in PATH.findall(path.read_text(encoding="utf-8"))
    ]
    assert len(named) > 50
    assert [f"{p.relative_to(ROOT)}: {n}" for p, n in named if not (ROOT / n).is_file()] == []
