"""The names that a release promises, with their signatures; the checksums of the tables' files.

`make fmt` writes both to tests/data/compatibility.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final, get_origin

from tests.support.checkout import ROOT, files_of

import dsql_outbox

KEPT: Final = ROOT / "tests" / "data" / "compatibility"

_IMPORT: Final = re.compile(r"^ *from (dsql_outbox[\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")

_NAMES_ONLY: Final = ("dsql_outbox.testing", "dsql_outbox.console")
"""Modules of tools, whose names stay while their members may change."""

_MADE_HERE: Final = {"AsyncTransaction", "Transaction"}
"""Classes whose objects the library makes: their constructors are not promised."""


def public_names() -> Iterator[tuple[str, str]]:
    """Yield the module and the name of each public name: `__all__`, and what a page imports."""
    found = {("dsql_outbox", name) for name in dsql_outbox.__all__ if name != "__version__"}
    for page in files_of(ROOT, "README.md", "docs/*.md"):
        for module, names in _IMPORT.findall(page.read_text(encoding="utf-8")):
            found |= {(module, name) for name in re.findall(r"\w+", names) if name != "as"}
    yield from sorted(found)


def signatures() -> str:
    """Return a line per name, method and field."""
    return "".join(f"{line}\n" for module, name in public_names() for line in _lines(module, name))


def checksums() -> str:
    """Return the SHA-256 of each migration."""
    files = sorted((ROOT / "schema" / "migrations").glob("*.sql"))
    return "".join(f"{sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)


def _lines(module: str, name: str) -> Iterator[str]:
    shown = getattr(importlib.import_module(module), name)
    yield f"{module}.{name}{'' if name in _MADE_HERE else _signature(shown)}"
    if inspect.isclass(shown) and not module.startswith(_NAMES_ONLY):
        for member, value in sorted(inspect.getmembers(shown)):
            if not member.startswith("_") and not _is_of_a_library(shown, member):
                yield f"{module}.{name}.{member}{_signature(value)}"


def _signature(value: Any) -> str:
    """Return parameters and defaults. Annotations name modules that may change."""
    try:
        # An alias of a type has a signature on Python 3.13, and none before.
        found = inspect.signature(None if get_origin(value) else value)
    except (TypeError, ValueError):
        return ""
    bare = [each.replace(annotation=each.empty) for each in found.parameters.values()]
    return _ADDRESS.sub("", str(inspect.Signature(bare)))


def _is_of_a_library(kind: type, member: str) -> bool:
    """Whether the member comes from a base class of another package."""
    owner = next(base for base in kind.__mro__ if member in base.__dict__)
    return not owner.__module__.startswith("dsql_outbox")


if __name__ == "__main__":
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / "names.txt").write_text(signatures(), encoding="utf-8")
    (KEPT / "tables.txt").write_text(checksums(), encoding="utf-8")
