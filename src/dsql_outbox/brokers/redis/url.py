"""Parse a ``redis://`` or ``rediss://`` URL."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.publisher.sinks.port import Destination, at_host
from dsql_outbox.publisher.sinks.url import (
    TIMEOUT,
    is_yes,
    parameters,
    password_file,
    seconds,
    split_hosts,
    split_login,
    tls_context,
)

_FORM: Final = "redis://[[USER]:PASSWORD@]HOST[:PORT][/DB][?PARAMETERS]"
_KIND: Final = "a Redis URL"
_PARAMETERS: Final = (
    "ca", "cert", "fsync", "key", "maxlen", "password_file", "replicas", "timeout",
)  # fmt: skip
_PORT: Final = 6379
_DATABASE: Final = re.compile(r"/(\d{1,9})(?=\?|$)")


@dataclass(frozen=True, kw_only=True)
class RedisSettings:
    """The server and how to reach it; `timeout` is in seconds."""

    host: Destination
    database: int
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    password_file: Path | None
    tls: Mapping[str, str] | None
    """The PEM files ``ca``, ``cert`` and ``key`` as far as given; None without TLS."""
    timeout: float
    maxlen: int | None
    fsync: bool
    replicas: int

    def __str__(self) -> str:
        return f"Redis at {self.host.host}:{self.host.port}"


def parse_redis_url(url: str) -> RedisSettings:
    """Parse a URL and read its files. Raises `SettingsError`, whose text contains no password."""
    database = _DATABASE.search(url)
    try:
        login, (host,), query = split_hosts(_DATABASE.sub("", url, count=1), _PORT)
    except ValueError:
        # `from None`: the text of the cause may contain the URL.
        raise SettingsError(f"{_KIND} is {_FORM}, with one host") from None
    given = parameters(_KIND, query, _PARAMETERS)
    user, password = split_login(login)
    file = password_file(_KIND, given, password)
    if user and password is None and file is None:
        text = f"the user of {_KIND} needs a password: USER:PASSWORD@, or password_file="
        raise SettingsError(text)
    context = tls_context(_KIND, url, "rediss", given)
    return RedisSettings(
        host=at_host(host),
        database=int(database[1]) if database else 0,
        user=user or None,
        password=password,
        password_file=file,
        tls=None if context is None else {n: given[n] for n in ("ca", "cert", "key") if n in given},
        timeout=seconds(_KIND, given.get("timeout", TIMEOUT)),
        maxlen=_count("maxlen", given["maxlen"], 1) if "maxlen" in given else None,
        fsync=is_yes(_KIND, "fsync", given.get("fsync", "no")),
        replicas=_count("replicas", given.get("replicas", "0"), 0),
    )


def _count(name: str, text: str, least: int) -> int:
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII) or int(text) < least:
        raise SettingsError(f"{name} of {_KIND} must be {least} or more, got {text!r}")
    return int(text)
