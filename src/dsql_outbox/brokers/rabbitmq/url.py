"""Parse a URL of RabbitMQ: ``rabbitmq://``, ``amqp://``, and with an ``s`` for TLS."""

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.redaction import has_unclear_login
from dsql_outbox.outbox.settings import is_unicode
from dsql_outbox.publisher.sinks.port import Destination, at_host
from dsql_outbox.publisher.sinks.url import (
    TlsParameters,
    read_parameters,
    read_utf8,
    refuse_two_passwords,
    split_hosts,
    split_login,
    tls_context,
)

_FORM: Final = "rabbitmq://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]..][/VHOST][?PARAMETERS]"
_KIND: Final = "a RabbitMQ URL"
_PORT: Final = 5672
_SECURE_PORT: Final = 5671
_PLACE: Final = re.compile(r"((?:rabbitmq|amqp)s?://[^/?#]*)(?:/([^/?#]*))?(\?.*)?", re.DOTALL)

SHORT: Final = 255
"""The most bytes of a short string of AMQP: a name, a routing key, a property."""

_NAME: Final = re.compile(r"[a-zA-Z0-9_.:@#,/+ -]{0,127}")
"""The names of exchanges that aiormq takes."""

_EXCHANGE: Final = "amq.topic"
"""The exchange that each virtual host has from the beginning, and that routes by topic."""


class RabbitMqParameters(TlsParameters, frozen=True, kw_only=True):
    """Those of a URL."""

    exchange: str = _EXCHANGE
    mandatory: bool = True
    """Whether a message that no queue gets is returned, and so not delivered."""
    password_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RabbitMqSettings:
    """The servers and how to reach them."""

    hosts: tuple[Destination, ...]
    vhost: str
    tls: ssl.SSLContext | None = field(repr=False)
    user: str
    fixed_password: str = field(repr=False)
    given: RabbitMqParameters

    @property
    def password(self) -> str:
        """The password of the next login. Raises `OSError` for its file."""
        if self.given.password_file is None:
            return self.fixed_password
        return read_utf8(self.given.password_file).strip()

    @property
    def place(self) -> str:
        """The exchange as errors name it."""
        return f"exchange {self.given.exchange}" if self.given.exchange else "the default exchange"

    def __str__(self) -> str:
        return f"RabbitMQ at {', '.join(f'{host.host}:{host.port}' for host in self.hosts)}"


def parse_rabbitmq_url(url: str) -> RabbitMqSettings:
    """Parse a URL and read its files. Raises `SettingsError`, whose text contains no password."""
    place = _PLACE.fullmatch(url)
    secure = f"{url.partition(':')[0].removesuffix('s')}s"
    try:
        if place is None or has_unclear_login(url):  # before the virtual host is cut off
            raise ValueError(url)
        address, vhost, query = place[1], place[2] or "", place[3] or ""
        port = _SECURE_PORT if url.startswith(f"{secure}:") else _PORT
        login, hosts, query = split_hosts(address + query, port)
    except ValueError:
        # `from None`: the text of the cause may contain the URL.
        raise SettingsError(f"{_KIND} is {_FORM}") from None
    given = read_parameters(_KIND, query, RabbitMqParameters)
    user, password = split_login(login)
    refuse_two_passwords(_KIND, password, given.password_file)
    if bool(user) != (password is not None or given.password_file is not None):
        raise SettingsError(f"a login of {_KIND} is USER:PASSWORD@, or USER@ and password_file")
    if not _NAME.fullmatch(given.exchange):
        rule = "has up to 127 of the characters A-Z a-z 0-9 _ . : @ # , / + - and blank"
        raise SettingsError(f"exchange of {_KIND} {rule}: {given.exchange[:60]!a}")
    return RabbitMqSettings(
        hosts=tuple(map(at_host, hosts)),
        vhost=_vhost(unquote(vhost) or "/"),
        tls=tls_context(_KIND, url, secure, given),
        # RabbitMQ has this user, who may log in over loopback only.
        user=user or "guest",
        fixed_password="guest" if password is None else password,
        given=given,
    )


def _vhost(name: str) -> str:
    if "\0" in name or not is_unicode(name) or len(name.encode()) > SHORT:
        raise SettingsError(f"the virtual host of {_KIND} has at most {SHORT} bytes, without NUL")
    return name
