"""What a ``nats://`` URL says."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from dsql_outbox.outbox import SettingsError

_FORM: Final = "nats://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]..][?PARAMETERS]"
_PARAMETERS: Final = ("creds", "stream", "subjects", "timeout")
_PORT: Final = 4222
_STREAM: Final = re.compile(r"[^\s.*>/\\]+")


@dataclass(frozen=True, kw_only=True)
class NatsSettings:
    """Where NATS is and how to speak with it; `timeout` is seconds."""

    hosts: tuple[str, ...]
    tls: bool
    user: str | None = field(repr=False)
    password: str | None = field(repr=False)
    token: str | None = field(repr=False)
    creds: Path | None
    timeout: float
    stream: str | None
    subjects: tuple[str, ...]

    @property
    def servers(self) -> list[str]:
        """The hosts as URLs, without credentials."""
        scheme = "tls" if self.tls else "nats"
        return [f"{scheme}://{host}" for host in self.hosts]

    def __str__(self) -> str:
        return f"NATS at {', '.join(self.hosts)}"


def parse_nats_url(url: str) -> NatsSettings:
    """Read a URL; raises `SettingsError`, which never shows a password."""
    try:
        # By hand: some releases of urlsplit refuse more than one [..] in a URL.
        scheme, _, rest = url.partition("://")
        address, _, query = rest.partition("?")
        login, _, hosts = address.removesuffix("/").rpartition("@")
        names = tuple(_host(host) for host in hosts.split(","))
    except ValueError:
        # Not its cause, whose text may show the URL.
        raise SettingsError(f"a NATS URL is {_FORM}") from None
    user, colon, password = (unquote(part) for part in login.partition(":"))
    given = _parameters(query)
    return NatsSettings(
        hosts=names,
        tls=scheme == "tls",
        user=user if colon else None,
        password=password if colon else None,
        token=None if colon else user or None,
        creds=_creds(given.get("creds")),
        timeout=_seconds(given.get("timeout", "5")),
        stream=_stream(given),
        subjects=tuple(given.get("subjects", "events.>").split(",")),
    )


def _host(text: str) -> str:
    host = urlsplit(f"//{text}")
    if not host.hostname or host.path or host.fragment:
        raise ValueError(text)
    return text if host.port else f"{text.rstrip(':')}:{_PORT}"


def _parameters(query: str) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(given.keys() - set(_PARAMETERS)):
        raise SettingsError(
            f"unknown in a NATS URL: {', '.join(unknown)}; known are {', '.join(_PARAMETERS)}"
        )
    return given


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise SettingsError(f"timeout of a NATS URL must be seconds above 0, got {text!r}")
    return seconds


def _stream(given: dict[str, str]) -> str | None:
    name = given.get("stream")
    if name is None and "subjects" in given:
        raise SettingsError("subjects of a NATS URL are those of its stream, and it names none")
    if name is not None and not _STREAM.fullmatch(name):
        raise SettingsError(f"stream of a NATS URL must not be empty or hold . * > / \\: {name!r}")
    return name


def _creds(file: str | None) -> Path | None:
    if file is None:
        return None
    # nats-py reads a file without these sections forever.
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"creds of a NATS URL: cannot read {file}") from error
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise SettingsError(f"creds of a NATS URL: {file} holds no user JWT and seed")
    return Path(file)
