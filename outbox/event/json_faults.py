"""Find the fault of an unreadable JSON text and its place. Pure; used after a failure only.

The reader of events names a byte at best. For three faults that libraries of other languages
write without complaint, this module names the path. It shows names that look like
identifiers and hides others, since keys of an object may be data.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from dsql_outbox.outbox.settings import is_unicode

# A string without an end is a token too: else each quote in it is read up to the end of the text.
_TOKEN: Final = re.compile(
    r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[][{}:,]|[^\s"\[\]{}:,]+', re.DOTALL
)
_SUSPECT: Final = re.compile(r"NaN|Infinity|\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""A part of each fault that `find_fault` knows. Most texts have none, and are not walked."""
_IDENTIFIER: Final = re.compile(r'"[A-Za-z_][A-Za-z0-9_]{0,63}"')
_NO_NUMBERS: Final = {"NaN", "Infinity", "-Infinity"}
_SHOWN: Final = 6
"""The number of steps of a path that are shown."""

_WALKED: Final = (200, 80)
"""A text is walked for so many tokens, and one more per so many characters.

So the refusal of a hostile text costs no more than a few valid events of its size.
"""

SURROGATE: Final = (
    "holds half of a surrogate pair (\\ud800 to \\udfff), which is no character of Unicode: "
    "remove or replace it"
)


class JsonFault(NamedTuple):
    """A fault at `path`, and its remedy."""

    path: str
    rule: str


class _Container:
    """An object or array that is open, and the member that is being read."""

    def __init__(self, *, is_object: bool) -> None:
        self.is_object = is_object
        self.expects_name = is_object
        self.at = "" if is_object else "[0]"
        self._index = 0

    def next(self) -> None:
        """Continue with the next member."""
        self.expects_name = self.is_object
        if not self.is_object:
            self._index += 1
            self.at = f"[{self._index}]"

    def enter(self, name: str) -> None:
        """Read the member of this name, a JSON string."""
        self.expects_name = False
        self.at = f".{name[1:-1]}" if _IDENTIFIER.fullmatch(name) else ".*"


def find_fault(text: str) -> JsonFault | None:
    """Return the first lone surrogate or number that JSON does not have, or None.

    None also if it comes late in a text of many tokens.
    """
    if _SUSPECT.search(text) is None:
        return None
    for part, open_ in _walk(text):
        if part in _NO_NUMBERS:
            rule = f"is {part}, which JSON does not have: send null, or a text"
            return JsonFault(_path(open_), rule)
        if part[0] == '"' and not _is_unicode(part):
            return JsonFault(_path(open_), SURROGATE)
    return None


def find_depth(text: str) -> JsonFault:
    """Return the fault of a text that is nested too deeply to be read."""
    deepest: list[str] = []
    depth = 0
    for _, open_ in _walk(text):
        if len(open_) > depth:
            depth = len(open_)
            if depth <= _SHOWN + 1:
                deepest = [_path(open_)]
    rule = f"is nested too deeply, at least {depth} levels: store the inner part as a text"
    return JsonFault("".join(deepest), rule)


def _walk(text: str) -> Iterator[tuple[str, list[_Container]]]:
    """Yield the first tokens, each with the containers that are open at it."""
    least, characters = _WALKED
    open_: list[_Container] = []
    for found in islice(_TOKEN.finditer(text), least + len(text) // characters):
        part = found[0]
        if part in "{[":
            open_.append(_Container(is_object=part == "{"))
        elif part in "}]":
            del open_[-1:]
        elif part == "," and open_:
            open_[-1].next()
        elif part[0] == '"' and open_ and open_[-1].expects_name:
            open_[-1].enter(part)
        yield part, open_


def _path(open_: list[_Container]) -> str:
    path = "".join(container.at for container in open_[:_SHOWN]).removeprefix(".")
    return path if len(open_) <= _SHOWN else f"{path}.."


def _is_unicode(string: str) -> bool:
    """Return whether a JSON string stands for a text that has a UTF-8 form."""
    if _SUSPECT.search(string) is None:  # to decode each string would cost more than the walk
        return True
    try:
        return is_unicode(json.loads(string, strict=False))
    except ValueError:
        return True  # another fault
