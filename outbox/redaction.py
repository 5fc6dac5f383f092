"""What may be shown of a URL and of an error of the driver."""

import re
from typing import Final

import psycopg

_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#\s]*)(.*)", re.IGNORECASE | re.DOTALL)
_HOSTS: Final = re.compile(r"(?:[\w.-]+|\[[0-9a-f:.]+\])?(?::\d{1,5})?", re.IGNORECASE)
_PATHS: Final = ("jsonl:", "stdout:")
"""Kinds of URL that name a file and have no login."""

_MORE: Final = re.compile(r"\s*\n(?:DETAIL|HINT|CONTEXT|LINE \d+|QUERY|STATEMENT):.*", re.DOTALL)


def redacted(url: str) -> str:
    """Scheme and hosts of a URL, and nothing that may be a part of a login or a parameter.

    Where it is not clear what belongs to the login, the hosts are left out, too.
    """
    if url.startswith(_PATHS):
        return url
    found = _URL.fullmatch(url)
    if found is None:
        return "a URL that cannot be shown"
    scheme, authority, rest = found.groups()
    # An @ behind the first / ? # or blank: either of them may be in the password.
    hosts = "" if "@" in rest else authority.rpartition("@")[2]
    clear = all(_HOSTS.fullmatch(host) for host in hosts.split(","))
    return f"{scheme}://{hosts if hosts and clear else '..'}"


def has_unclear_login(url: str) -> bool:
    """Whether an @ stands where no login ends: a / ? or # of a password was not encoded."""
    found = _URL.fullmatch(url)
    return found is not None and "@" in found[3]


def told(error: BaseException) -> str:
    """The text of an error on one line, without what the server adds of rows and statements."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    text = primary or _MORE.sub("", str(error))
    return " ".join(text.split()) or type(error).__name__
