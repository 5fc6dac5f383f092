"""Parse a ``nats://`` or ``tls://`` URL."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher.sinks.url import TIMEOUT, parameters, seconds, split_hosts, split_login

_FORM: Final = "nats://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]..][?PARAMETERS]"
_PARAMETERS: Final = ("creds", "stream", "subjects", "timeout")
_PORT: Final = 4222
_STREAM: Final = re.compile(r"[^\s.*>/\\]+")


@dataclass(frozen=True, kw_only=True)
class NatsSettings:
    """The servers and how to reach them; `timeout` is in seconds."""

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
    """Parse a URL; raises `SettingsError`, whose text contains no password."""
    try:
        login, hosts, query = split_hosts(url, _PORT)
    except ValueError:
        # `from None`: the text of the cause may contain the URL.
        raise SettingsError(f"a NATS URL is {_FORM}") from None
    user, password = split_login(login)
    given = parameters("a NATS URL", query, _PARAMETERS)
    return NatsSettings(
        hosts=hosts,
        tls=url.startswith("tls:"),
        user=None if password is None else user,
        password=password,
        token=user or None if password is None else None,
        creds=_creds(given.get("creds")),
        timeout=seconds("a NATS URL", given.get("timeout", TIMEOUT)),
        stream=_stream(given),
        subjects=tuple(given.get("subjects", "events.>").split(",")),
    )


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
    # nats-py never stops reading a file without these sections.
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"creds of a NATS URL: cannot read {file}") from error
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise SettingsError(f"creds of a NATS URL: {file} holds no user JWT and seed")
    return Path(file)
