"""What the URLs of brokers have in common."""

import math
from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from dsql_outbox.outbox import SettingsError, has_unclear_login

TIMEOUT: Final = "5"
"""Seconds that a broker is given to answer, unless the URL says otherwise."""


def split_hosts(url: str, port: int) -> tuple[str, tuple[str, ...], str]:
    """``scheme://LOGIN@HOST[:PORT][,HOST..][?QUERY]`` as login, hosts with ports, query.

    Raises `ValueError` for any other form, with a text that may show the URL.
    """
    # By hand: some releases of urlsplit refuse more than one [..] in a URL.
    if has_unclear_login(url):
        raise ValueError(url)
    _, _, rest = url.partition("://")
    address, _, query = rest.partition("?")
    login, _, hosts = address.removesuffix("/").rpartition("@")
    return login, tuple(_host(host, port) for host in hosts.split(",")), query


def split_login(login: str) -> tuple[str, str | None]:
    """``USER[:PASSWORD]``, both decoded; without a colon there is no password."""
    user, colon, password = login.partition(":")
    return unquote(user), unquote(password) if colon else None


def parameters(kind: str, query: str, known: Collection[str]) -> dict[str, str]:
    """What follows the question mark; raises `SettingsError` for names that are not `known`."""
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(given.keys() - set(known)):
        names = ", ".join(sorted(known))
        raise SettingsError(f"unknown in {kind}: {', '.join(unknown)}; known are {names}")
    return given


def seconds(kind: str, text: str) -> float:
    """The timeout; raises `SettingsError` unless it is above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise SettingsError(f"timeout of {kind} must be seconds above 0, got {text!r}")
    return number


def _host(text: str, port: int) -> str:
    host = urlsplit(f"//{text}")
    if not host.hostname or host.path or host.fragment:
        raise ValueError(text)
    return text if host.port else f"{text.rstrip(':')}:{port}"
