"""Parse a ``redis://`` or ``rediss://`` URL."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.publisher.sinks.port import Destination, at_host
from dsql_outbox.publisher.sinks.url import (
    TlsParameters,
    read_parameters,
    refuse_two_passwords,
    split_hosts,
    split_login,
    tls_context,
)

_FORM: Final = "redis://[[USER]:PASSWORD@]HOST[:PORT][,HOST..][/DB][?PARAMETERS]"
_KIND: Final = "a Redis URL"
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_FIELD: Final = re.compile(r"(?!ce-|dedupe-id$)[A-Za-z0-9_.-]{1,100}")
_SERVICE: Final = re.compile(r"[A-Za-z0-9_.-]{1,80}")
_DATABASE: Final = re.compile(r"/(\d{1,9})(?=\?|$)")


class RedisParameters(TlsParameters, frozen=True, kw_only=True):
    """Those of a URL."""

    field: str = "payload"
    """The field of an entry that has the payload."""
    fsync: bool = False
    maxlen: Annotated[int, Meta(ge=1)] | None = None
    password_file: Path | None = None
    replicas: int = 0
    sentinel: str | None = None
    """The name by which Sentinels know the server."""
    sentinel_password_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RedisSettings:
    """The server and how to reach it."""

    hosts: tuple[Destination, ...]
    """The server, or the Sentinels that know it."""
    database: int
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    has_tls: bool
    given: RedisParameters

    def __str__(self) -> str:
        places = ", ".join(f"{host.host}:{host.port}" for host in self.hosts)
        name = self.given.sentinel
        return f"Redis {name} of Sentinel at {places}" if name else f"Redis at {places}"


def parse_redis_url(url: str) -> RedisSettings:
    """Parse a URL and read its files. Raises `SettingsError`, whose text contains no password."""
    database = _DATABASE.search(url)
    plain = _DATABASE.sub("", url, count=1)
    try:
        login, hosts, query = split_hosts(plain, _PORT)
    except ValueError:
        # `from None`: the text of the cause may contain the URL.
        raise SettingsError(f"{_KIND} is {_FORM}") from None
    given = read_parameters(_KIND, query, RedisParameters)
    if given.sentinel is not None:
        _, hosts, _ = split_hosts(plain, _SENTINEL_PORT)
        if not _SERVICE.fullmatch(given.sentinel):
            rule = "is a name of 1 to 80 of the characters A-Z a-z 0-9 _ . -"
            raise SettingsError(f"sentinel of {_KIND} {rule}")
    elif len(hosts) > 1:
        raise SettingsError(f"{_KIND} has one host, or sentinel=NAME and the hosts of Sentinels")
    elif given.sentinel_password_file is not None:
        raise SettingsError(f"sentinel_password_file of {_KIND} needs sentinel=NAME")
    user, password = split_login(login)
    refuse_two_passwords(_KIND, password, given.password_file)
    if user and password is None and given.password_file is None:
        text = f"the user of {_KIND} needs a password: USER:PASSWORD@, or password_file="
        raise SettingsError(text)
    if not _FIELD.fullmatch(given.field):
        rule = "is a name of 1 to 100 of the characters A-Z a-z 0-9 _ . -, and none of ours"
        raise SettingsError(f"field of {_KIND} {rule}")
    return RedisSettings(
        hosts=tuple(map(at_host, hosts)),
        database=int(database[1]) if database else 0,
        user=user or None,
        password=password,
        has_tls=tls_context(_KIND, url, "rediss", given) is not None,
        given=given,
    )
