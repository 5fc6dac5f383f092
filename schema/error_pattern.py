"""The pattern of an error: its text without what differs from message to message. Pure."""

import re
from typing import Final

_READ: Final = 1_000
_LONGEST: Final = 200

_SPACE: Final = re.compile(r"[^\S ]+| {2,}")
_WORD: Final = re.compile(r"""(?:[^\s"'`()\[\]{}<>,;=|]|(?<=\d),(?=\d))+""")
_STATUS: Final = re.compile(r"[45]\d\d")
_RUN: Final = re.compile(r"\*(?: ?\*)+")


def error_pattern(error: str) -> str:
    """Return the pattern that errors of one kind share; ``*`` stands for any text.

    A word with a digit varies: an id, a number, a time, an address. Only the status of an HTTP
    answer stays, 400 to 599, as it tells errors apart. The pattern has at most 200 characters,
    all printable, and `Selection.error` accepts it.

        >>> error_pattern("message LOAN-7 of 1,048,812 bytes: HTTP 413")
        'message * of * bytes: HTTP 413'
    """
    text = _SPACE.sub("*", error[:_READ].strip())
    text = "".join(each if each.isprintable() else "*" for each in text)
    return _RUN.sub("*", _WORD.sub(_without_varying, text))[:_LONGEST].strip()


def _without_varying(found: re.Match[str]) -> str:
    word = found[0]
    bare = word.rstrip(".:!?")
    if _STATUS.fullmatch(bare) or not any(each.isdigit() for each in bare):
        return word
    return "*" + word[len(bare) :]
