"""Find sentences that a reader must read twice: too long, or in a form that the project avoids.

`python -m tests.support.prose` lists them, and ends with the voice of the pages in numbers.
CONTRIBUTING.md has the rules.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.checkout import ROOT, files_of

WORDS: Final = 32
"""The longest sentence, in words. Code in backticks counts as one word."""

UNITS: Final = "row|event|message|write|statement|second|minute|process|touch"

HABITS: Final = {
    r"^(Who|Whoever|Whom|To whom|What|Which|Whose) (?![^?]*\?)": "begin with a noun",
    r"\b[Ww]ho(ever|mever)\b": "name the reader or the program",
    r"\b[Aa]ll that (there )?is\b": "name the things",
    r"\bthe same of\b": "name the thing again",
    r"\bof (our|your|their|its) own\b.*\bof (our|your|their|its) own\b": "say it once",
    r"\b(hereby|thereby|whereby|thereof|therein|whereupon|whence|thence)\b": "use plain words",
    rf"\b(a|an) ({UNITS}) (a|an) ({UNITS})\b": "write `per`",
    r"\b[Tt]ell that\b": "write `report that`",
    r"\b(simply|obviously|just simply|of course|basically|in order to)\b": "leave it out",
    r"\b(begun|hath|lest|ere|yonder|naught|nay|upon)\b": "use plain words",
    r", (and|but|so|or) [^,.]*, (and|but|so|or) [^,.]*, (and|but|so|or) ": "one idea per sentence",
}  # fmt: skip

VOICE: Final = {
    r"\b[Tt]he \w+ of (the|a|an)\b": ("the X of the Y", 2.5),
    r"\w: (?=[a-z`])": ("a colon inside a sentence", 2),
    r"^So\b": ("a sentence that begins with So", 0.3),
    r"\b([Yy]ou|[Yy]our|[Yy]ours)\b": ("you", 12),
    r"\b([Bb]ecause|so that|which means|[Uu]nless)\b": ("a reason in the sentence", 3),
    r"\b([Bb]ut|[Hh]owever|[Aa]lthough)\b": ("a contrast", 4),
}
"""What is counted in the guides, and the value of four good manuals: the first three per 1,000
words, the others in percent of sentences."""

FENCE: Final = re.compile(r"^( *)(```|~~~).*?^ *\2", re.MULTILINE | re.DOTALL)
INDENTED: Final = re.compile(r"^(    ).*$", re.MULTILINE)
LITERAL: Final = re.compile(r"``.+?``|`[^`]+`")
LINK: Final = re.compile(r"!?\[([^]]*)\]\([^)]*\)")
BREAK: Final = re.compile(r"\n\s*\n|^\s*(?:[-*]|\d+\.)\s+|^#+ .*$|^\|.*$|^<.*$", re.MULTILINE)
CELL: Final = re.compile(r"^\|(.*)\|\s*$", re.MULTILINE)
SENTENCE: Final = re.compile(r"(?<=[.!?:])\s+(?=[A-Z`\"(])|;\s")


class Finding(NamedTuple):
    """A sentence, where it stands, and what to do about it."""

    path: Path
    sentence: str
    remedy: str


def findings() -> Iterator[Finding]:
    """Yield what is wrong in the pages and in the docstrings of the packages."""
    for path in files_of(ROOT, "*.md"):
        if not {"decisions", "data"} & set(path.parts):  # records, and words of others
            yield from _judge(path, _paragraphs(path.read_text(encoding="utf-8")))
    for path in files_of(ROOT, "*.py"):
        if "tests" not in path.parts:
            yield from _judge(path, _docstrings(path))


def voice() -> Iterator[tuple[str, float, float]]:
    """Yield each part of `VOICE` with its value in the pages, and that of good manuals."""
    said = [
        sentence
        for path in sorted((ROOT / "docs").glob("*.md"))
        for paragraph in BREAK.split(FENCE.sub("\n\n", path.read_text(encoding="utf-8")))
        for sentence in sentences(paragraph)
        if len(sentence.split()) > 2
    ]
    words = sum(len(sentence.split()) for sentence in said)
    for n, (pattern, (name, good)) in enumerate(VOICE.items()):
        found = sum(len(re.findall(pattern, each)) for each in said)
        holds = sum(bool(re.search(pattern, each)) for each in said)
        yield name, 1000 * found / words if n < 3 else 100 * holds / len(said), good


def sentences(paragraph: str) -> list[str]:
    """Return the sentences of a paragraph on one line each."""
    plain = LITERAL.sub("`x`", LINK.sub(r"\1", paragraph))
    return SENTENCE.split(" ".join(plain.split()))


def _judge(path: Path, paragraphs: Iterator[str]) -> Iterator[Finding]:
    for paragraph in paragraphs:
        for sentence in sentences(paragraph):
            for remedy in _remedies(sentence):
                yield Finding(path.relative_to(ROOT), sentence, remedy)


def _remedies(sentence: str) -> Iterator[str]:
    if len(sentence.split()) > WORDS:
        yield f"{len(sentence.split())} words: split it"
    for habit, remedy in HABITS.items():
        if re.search(habit, sentence):
            yield remedy


def _paragraphs(text: str) -> Iterator[str]:
    text = FENCE.sub("\n\n", text)
    for row in CELL.findall(text):
        yield from row.split("|")
    yield from BREAK.split(INDENTED.sub("", text))


def _docstrings(path: Path) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield from _paragraphs(text)


if __name__ == "__main__":
    only = sys.argv[1:]
    for found in findings():
        if not only or any(str(found.path).startswith(path) for path in only):
            sys.stdout.write(f"{found.path}: {found.remedy}\n    {found.sentence}\n")
    for name, value, good in voice():
        sys.stdout.write(f"{value:5.1f} ({good:g} in good manuals)  {name}\n")
