"""Remove secrets and values from URLs and from errors before they are shown."""

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from itertools import dropwhile
from traceback import walk_tb
from types import FrameType, TracebackType
from typing import Final, cast

_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#\s]*)(.*)", re.IGNORECASE | re.DOTALL)
_HOSTS: Final = re.compile(r"(?:[\w.-]+|\[[0-9a-f:.]+\])?(?::\d{1,5})?", re.IGNORECASE)
_PATHS: Final = ("jsonl:", "stdout:")
"""Schemes of URLs that name a file and contain no login."""

_MORE: Final = re.compile(r"\s*\n(?:DETAIL|HINT|CONTEXT|LINE \d+|QUERY|STATEMENT):.*", re.DOTALL)

_ASKED: Final = re.compile(r"\n\tIs the server running .*")
"""What libpq asks about each address that refuses a connection."""

_SYSTEM: Final = frozenset({"builtins", "socket", "ssl"})
"""The modules of the errors that Python itself makes of an error of the system."""
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

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


def error_text(error: BaseException | None, known: re.Pattern[str] | None = None) -> str:
    """Return what can be shown of an error of a client, or of the user's code.

    Its own text may quote what was sent: a password, a payload. So this is what is `known` in it,
    else the reason that the operating system or TLS gives, else the name of its class.
    """
    while isinstance(error, BaseExceptionGroup):  # of the tasks of a sink
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    if error is None:
        return "no reason given"
    if known is not None and (found := known_text(str(error), known)):
        return found
    system = system_error(error)
    return (system and _reason(system)) or type(error).__name__


def known_text(text: str, known: re.Pattern[str]) -> str:
    """Return the parts of a broker's reply that `known` matches: the others may quote anything."""
    return ": ".join(dict.fromkeys(found[0] for found in known.finditer(text)))


def system_error(error: BaseException | None) -> OSError | None:
    """Return the error of the operating system or of TLS that led to another one, if one did.

    It is the cause to name in a traceback, since it knows nothing of what was sent.
    """
    found = next((each for each in chain(error) if type(each).__module__ in _SYSTEM), None)
    return found if isinstance(found, OSError) else None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that led to it, each once: a client may tie them to a ring."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__  # redis-py names no cause


def without_text(error: BaseException, shown: Exception) -> _ExcInfo:
    """Return the `exc_info` of a log line: the places of an error, which it names as `shown`."""
    return type(shown), shown, error.__traceback__


def _reason(error: OSError) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason
    if isinstance(error, socket.gaierror):
        return error.strerror
    # A connection to several addresses has the reasons in its text alone.
    number = error.errno or next(iter(map(int, _ERRNO.findall(str(error)))), 0)
    return os.strerror(number) if number in errno.errorcode else None


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
