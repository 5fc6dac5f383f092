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

_FORM: Final = "redis://[[USER]:PASSWORD@]HOST[:PORT][,HOST..][/DB][?PARAMETERS]"
_KIND: Final = "a Redis URL"
_PARAMETERS: Final = (
    "ca", "cert", "field", "fsync", "key", "maxlen", "password_file", "replicas", "sentinel",
    "sentinel_password_file", "timeout",
)  # fmt: skip
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_FIELD: Final = re.compile(r"(?!ce-|dedupe-id$)[A-Za-z0-9_.-]{1,100}")
_SERVICE: Final = re.compile(r"[A-Za-z0-9_.-]{1,80}")
_DATABASE: Final = re.compile(r"/(\d{1,9})(?=\?|$)")


@dataclass(frozen=True, kw_only=True)
class RedisSettings:
    """The server and how to reach it; `timeout` is in seconds."""

    hosts: tuple[Destination, ...]
    """The server, or the Sentinels that know it."""
    sentinel: str | None
    """The name by which Sentinels know the server."""
    sentinel_password_file: Path | None
    database: int
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    password_file: Path | None
    tls: Mapping[str, str] | None
    """The PEM files ``ca``, ``cert`` and ``key`` as far as given; None without TLS."""
    timeout: float
    field: str
    """The field of an entry that has the payload."""
    maxlen: int | None
    fsync: bool
    replicas: int

    def __str__(self) -> str:
        places = ", ".join(f"{host.host}:{host.port}" for host in self.hosts)
        return (
            f"Redis {self.sentinel} of Sentinel at {places}"
            if self.sentinel
            else f"Redis at {places}"
        )


def parse_redis_url(url: str) -> RedisSettings:
    """Parse a URL and read its files. Raises `SettingsError`, whose text contains no password."""
    database = _DATABASE.search(url)
    plain = _DATABASE.sub("", url, count=1)
    try:
        login, hosts, query = split_hosts(plain, _PORT)
    except ValueError:
        # `from None`: the text of the cause may contain the URL.
        raise SettingsError(f"{_KIND} is {_FORM}") from None
    given = parameters(_KIND, query, _PARAMETERS)
    sentinel = given.get("sentinel")
    if sentinel is not None:
        _, hosts, _ = split_hosts(plain, _SENTINEL_PORT)
    if sentinel is None and len(hosts) > 1:
        raise SettingsError(f"{_KIND} has one host, or sentinel=NAME and the hosts of Sentinels")
    if sentinel is not None and not _SERVICE.fullmatch(sentinel):
        rule = "is a name of 1 to 80 of the characters A-Z a-z 0-9 _ . -"
        raise SettingsError(f"sentinel of {_KIND} {rule}")
    if sentinel is None and "sentinel_password_file" in given:
        raise SettingsError(f"sentinel_password_file of {_KIND} needs sentinel=NAME")
    user, password = split_login(login)
    file = password_file(_KIND, given, password)
    if user and password is None and file is None:
        text = f"the user of {_KIND} needs a password: USER:PASSWORD@, or password_file="
        raise SettingsError(text)
    payload = given.get("field", "payload")
    if not _FIELD.fullmatch(payload):
        rule = "is a name of 1 to 100 of the characters A-Z a-z 0-9 _ . -, and none of ours"
        raise SettingsError(f"field of {_KIND} {rule}")
    context = tls_context(_KIND, url, "rediss", given)
    return RedisSettings(
        hosts=tuple(map(at_host, hosts)),
        sentinel=sentinel,
        sentinel_password_file=password_file(_KIND, given, None, "sentinel_password_file"),
        database=int(database[1]) if database else 0,
        user=user or None,
        password=password,
        password_file=file,
        tls=None if context is None else {n: given[n] for n in ("ca", "cert", "key") if n in given},
        timeout=seconds(_KIND, given.get("timeout", TIMEOUT)),
        field=payload,
        maxlen=_count("maxlen", given["maxlen"], 1) if "maxlen" in given else None,
        fsync=is_yes(_KIND, "fsync", given.get("fsync", "no")),
        replicas=_count("replicas", given.get("replicas", "0"), 0),
    )


def _count(name: str, text: str, least: int) -> int:
    if not re.fullmatch(r"\d{1,15}", text, re.ASCII) or int(text) < least:
        raise SettingsError(f"{name} of {_KIND} must be {least} or more, got {text!r}")
    return int(text)
