"""Parse a ``nats://`` or ``tls://`` URL."""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from msgspec import Meta

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.publisher.sinks.url import (
    TlsParameters,
    read_parameters,
    read_text,
    read_utf8,
    split_hosts,
    split_login,
    tls_context,
)

_FORM: Final = "nats://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]..][?PARAMETERS]"
_KIND: Final = "a NATS URL"
_PORT: Final = 4222
_STREAM: Final = re.compile(r"[^\s.*>/\\]+")
_SEED: Final = re.compile(r"SU[A-Z2-7]{56}")


class NatsParameters(TlsParameters, frozen=True, kw_only=True):
    """Those of a URL. Those of a stream that is not there are None."""

    creds: Path | None = None
    nkey: Path | None = None
    replicas: Annotated[int, Meta(ge=1, le=5)] | None = None
    stream: str | None = None
    subjects: str | None = None
    token_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class NatsSettings:
    """The servers and how to reach them; `timeout` is in seconds."""

    hosts: tuple[str, ...]
    tls: ssl.SSLContext | None = field(repr=False)
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    token: str | Callable[[], str] | None = field(repr=False)
    """The token, or a function that returns it for each login."""
    creds: Path | None
    nkey: str | None = field(repr=False)
    """The seed of a user's nkey."""
    timeout: float
    stream: str | None
    subjects: tuple[str, ...]
    replicas: int

    @property
    def servers(self) -> list[str]:
        """The hosts as URLs, without credentials."""
        scheme = "nats" if self.tls is None else "tls"
        return [f"{scheme}://{host}" for host in self.hosts]

    def __str__(self) -> str:
        return f"NATS at {', '.join(self.hosts)}"


def parse_nats_url(url: str) -> NatsSettings:
    """Parse a URL and read its files. Raises `SettingsError`, whose text contains no password."""
    try:
        login, hosts, query = split_hosts(url, _PORT)
    except ValueError:
        # `from None`: the text of the cause may contain the URL.
        raise SettingsError(f"{_KIND} is {_FORM}") from None
    user, password = split_login(login)
    given = read_parameters(_KIND, query, NatsParameters)
    if bool(login) + sum(map(bool, (given.creds, given.nkey, given.token_file))) > 1:
        raise SettingsError(f"{_KIND} has one login: text before the @, creds, nkey, or token_file")
    return NatsSettings(
        hosts=hosts,
        tls=tls_context(_KIND, url, "tls", given),
        user=None if password is None else user,
        password=password,
        token=_token(given.token_file) or (None if password is not None else user or None),
        creds=_creds(given.creds),
        nkey=_nkey(given.nkey),
        timeout=given.timeout,
        stream=_stream(given),
        subjects=tuple((given.subjects or "events.>").split(",")),
        replicas=given.replicas or 1,
    )


def _stream(given: NatsParameters) -> str | None:
    name = given.stream
    lonely = [each for each in ("replicas", "subjects") if getattr(given, each) is not None]
    if name is None and lonely:
        names = " and ".join(lonely)
        raise SettingsError(f"{names} of {_KIND} are those of its stream, and it names none")
    if name is not None and not _STREAM.fullmatch(name):
        raise SettingsError(f"stream of {_KIND} must not be empty or hold . * > / \\: {name!r}")
    return name


def _nkey(file: Path | None) -> str | None:
    if file is None:
        return None
    seed = read_text(_KIND, "nkey", file).strip()
    if not _SEED.fullmatch(seed):
        raise SettingsError(f"nkey of {_KIND}: {file} holds no seed of a user (SU..)")
    return seed


def _creds(file: Path | None) -> Path | None:
    if file is not None:
        # nats-py never stops reading a file without these sections.
        text = read_text(_KIND, "creds", file)
        if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
            raise SettingsError(f"creds of {_KIND}: {file} holds no user JWT and seed")
    return file


def _token(file: Path | None) -> Callable[[], str] | None:
    return None if file is None else lambda: read_utf8(file).strip()
