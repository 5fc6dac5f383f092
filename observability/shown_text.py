"""Text for people: durations, counts, and text without control characters."""

import re
from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_LONGEST: Final = 10_000 * 365 * _DAY


def duration(seconds: float) -> str:
    """Seconds as text, in the two largest units, such as ``2 h 5 min``; nothing below 0."""
    if seconds < _MINUTE:
        return f"{max(seconds, 0.0):.1f} s"
    if not seconds <= _LONGEST:  # infinity and NaN too: a row may hold any time
        return "over 10,000 years"
    whole = int(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def counted(count: int, what: str) -> str:
    """A number and its noun, such as ``1 event`` or ``1,200 events``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


_HIDDEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0 (with line breaks and ESC), DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # change the direction of the text after them
    "\u2028\u2029"  # separate lines and paragraphs
    "\ud800-\udfff]"  # cannot be encoded
)


def visible(text: str) -> str:
    r"""Replace each control character, including line breaks, by ``\xNN`` or ``\uNNNN``."""
    return _HIDDEN.sub(lambda found: _escaped(found[0], short=True), text)


def visible_json(line: bytes) -> bytes:
    r"""Replace each control character in the strings of JSON by ``\uNNNN``.

    A JSON encoder escapes C0, but leaves DEL, C1 and the direction marks as they
    are. Line feeds between documents stay.
    """
    if line.isascii() and b"\x7f" not in line:
        return line
    text = line.decode("utf-8", "surrogatepass")
    return _HIDDEN.sub(_escaped_in_json, text).encode()


def _escaped_in_json(found: re.Match[str]) -> str:
    return found[0] if found[0] == "\n" else _escaped(found[0], short=False)


def _escaped(character: str, *, short: bool) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if short and code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004 - a byte
