"""Parse a ``nats://`` or ``tls://`` URL."""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.publisher.sinks.url import (
    TIMEOUT,
    parameters,
    read_text,
    read_utf8,
    seconds,
    split_hosts,
    split_login,
    tls_context,
)

_FORM: Final = "nats://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]..][?PARAMETERS]"
_KIND: Final = "a NATS URL"
_PARAMETERS: Final = (
    "ca", "cert", "creds", "key", "nkey", "replicas", "stream", "subjects", "timeout", "token_file",
)  # fmt: skip
_PORT: Final = 4222
_STREAM: Final = re.compile(r"[^\s.*>/\\]+")
_SEED: Final = re.compile(r"SU[A-Z2-7]{56}")
_MOST_REPLICAS: Final = 5  # the server's limit


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
    given = parameters(_KIND, query, _PARAMETERS)
    if bool(login) + sum(name in given for name in ("creds", "nkey", "token_file")) > 1:
        raise SettingsError(f"{_KIND} has one login: text before the @, creds, nkey, or token_file")
    return NatsSettings(
        hosts=hosts,
        tls=tls_context(_KIND, url, "tls", given),
        user=None if password is None else user,
        password=password,
        token=_token(given.get("token_file")) or (None if password is not None else user or None),
        creds=_creds(given.get("creds")),
        nkey=_nkey(given.get("nkey")),
        timeout=seconds(_KIND, given.get("timeout", TIMEOUT)),
        stream=_stream(given),
        subjects=tuple(given.get("subjects", "events.>").split(",")),
        replicas=_replicas(given.get("replicas", "1")),
    )


def _stream(given: dict[str, str]) -> str | None:
    name = given.get("stream")
    if name is None and (lonely := given.keys() & {"subjects", "replicas"}):
        names = " and ".join(sorted(lonely))
        raise SettingsError(f"{names} of {_KIND} are those of its stream, and it names none")
    if name is not None and not _STREAM.fullmatch(name):
        raise SettingsError(f"stream of {_KIND} must not be empty or hold . * > / \\: {name!r}")
    return name


def _replicas(text: str) -> int:
    if text not in map(str, range(1, _MOST_REPLICAS + 1)):
        raise SettingsError(f"replicas of {_KIND} are 1 to {_MOST_REPLICAS}, got {text!r}")
    return int(text)


def _nkey(file: str | None) -> str | None:
    if file is None:
        return None
    seed = read_text(_KIND, "nkey", file).strip()
    if not _SEED.fullmatch(seed):
        raise SettingsError(f"nkey of {_KIND}: {file} holds no seed of a user (SU..)")
    return seed


def _creds(file: str | None) -> Path | None:
    if file is None:
        return None
    # nats-py never stops reading a file without these sections.
    text = read_text(_KIND, "creds", file)
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise SettingsError(f"creds of {_KIND}: {file} holds no user JWT and seed")
    return Path(file)


def _token(file: str | None) -> Callable[[], str] | None:
    if file is None:
        return None

    def read() -> str:
        return read_utf8(file).strip()

    read_text(_KIND, "token_file", file)  # so that a wrong name is reported now
    return read
