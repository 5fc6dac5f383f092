"""Remove secrets and values from URLs and from errors before they are shown."""

import re
from itertools import dropwhile
from traceback import walk_tb
from types import FrameType
from typing import Final

_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#\s]*)(.*)", re.IGNORECASE | re.DOTALL)
_HOSTS: Final = re.compile(r"(?:[\w.-]+|\[[0-9a-f:.]+\])?(?::\d{1,5})?", re.IGNORECASE)
_PATHS: Final = ("jsonl:", "stdout:")
"""Schemes of URLs that name a file and contain no login."""

_MORE: Final = re.compile(r"\s*\n(?:DETAIL|HINT|CONTEXT|LINE \d+|QUERY|STATEMENT):.*", re.DOTALL)

_ASKED: Final = re.compile(r"\n\tIs the server running .*")
"""What libpq asks about each address that refuses a connection."""

_FIRST: Final = 2
_LAST: Final = 5
"""The most places of a traceback that are kept: so many first ones, and innermost ones."""


def redacted(url: str) -> str:
    """Return the scheme and the hosts of a URL, without login and parameters.

    The hosts are left out if the end of the login is ambiguous.
    """
    if url.startswith(_PATHS):
        return url
    found = _URL.fullmatch(url)
    if found is None:
        return "a URL that cannot be shown"
    scheme, authority, rest = found.groups()
    # An @ after the first / ? # or blank: the password may contain that character.
    hosts = "" if "@" in rest else authority.rpartition("@")[2]
    clear = all(_HOSTS.fullmatch(host) for host in hosts.split(","))
    return f"{scheme}://{hosts if hosts and clear else '..'}"


def has_unclear_login(url: str) -> bool:
    """Return whether an @ follows the host: then a / ? or # of the password is not encoded."""
    found = _URL.fullmatch(url)
    return found is not None and "@" in found[3]


def error_line(error: BaseException) -> str:
    """Return the text of an error on one line.

    DETAIL, HINT, CONTEXT and the statement are left out: they may contain values of rows.
    """
    primary = getattr(getattr(error, "diag", None), "message_primary", None)  # of psycopg, psycopg2
    text = primary or _MORE.sub("", _ASKED.sub("", str(error)))
    return " ".join(text.split()) or type(error).__name__


def places_of(error: BaseException) -> list[str]:
    """Return the places of the user's code that an error came through, the innermost last.

    A line ``  FILE:LINE NAME`` each, from the user's function on that this library called.
    """
    frames = dropwhile(_is_ours, walk_tb(error.__traceback__))
    places = [
        f"  {frame.f_code.co_filename}:{line} {frame.f_code.co_qualname}" for frame, line in frames
    ]
    if (left_out := len(places) - _FIRST - _LAST) > 1:
        places[_FIRST:-_LAST] = [f"  .. {left_out} more"]
    return places


def _is_ours(place: tuple[FrameType, int]) -> bool:
    """Whether a place of a traceback is in this library, which called the function."""
    frame, _ = place
    return str(frame.f_globals.get("__name__")).startswith("dsql_outbox.")
