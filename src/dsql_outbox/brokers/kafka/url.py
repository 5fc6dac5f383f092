"""Parse a ``kafka://`` URL into settings of librdkafka."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.publisher.sinks.url import (
    TlsParameters,
    read_parameters,
    read_text,
    split_hosts,
    split_login,
)

from .tokens import TokenProvider, msk_tokens

_KIND: Final = "a Kafka URL"
_FORM: Final = "kafka://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]..][?PARAMETERS]"
_TLS_FILES: Final = {
    "ca": "ssl.ca.location",
    "cert": "ssl.certificate.location",
    "key": "ssl.key.location",
}
_PORT: Final = 9092
_PROTOCOL: Final = "security.protocol"
_MECHANISM: Final = "sasl.mechanism"
_PASSWORD: Final = "sasl.password"  # noqa: S105 - the name of a setting
_MSK: Final = "msk"
"""The one provider of tokens. OAUTHBEARER with OIDC is librdkafka's own, in the config file."""

_DEFAULTS: Final = {
    "client.id": "dsql-outbox",
    # The partitioner of Java clients, so that they choose the same partition for a key.
    "partitioner": "murmur2_random",
    # Reconnect within one second after a broker is back; the default is ten.
    "reconnect.backoff.max.ms": "1000",
    # The broker's limit decides, not librdkafka's own of 1,000,000 bytes.
    "message.max.bytes": "100000000",
}
"""Defaults that the config file may change."""

_OWN: Final = (
    "acks",
    "bootstrap.servers",
    "delivery.report.only.error",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.timeout.ms",
    "metadata.broker.list",
    "request.required.acks",
    "delivery.timeout.ms",
    "topic.metadata.propagation.max.ms",
    "transactional.id",
)
"""Settings that the config file may not contain.

Order and at-least-once delivery depend on them, or the URL sets them.
"""

_OBJECTS: Final = re.compile(r".*_cb|default\.topic\.config|logger|on_delivery")
"""Settings of confluent-kafka whose values are functions and other objects of Python."""


class KafkaParameters(TlsParameters, frozen=True, kw_only=True):
    """Those of a URL."""

    config: Path | None = None
    mechanism: str | None = None
    password_file: Path | None = None
    region: str | None = None
    tls: bool | None = None
    token: str | None = None

    @property
    def tls_files(self) -> dict[str, str]:
        """The PEM files as settings of librdkafka."""
        files = {setting: getattr(self, name) for name, setting in _TLS_FILES.items()}
        return {setting: file for setting, file in files.items() if file is not None}


@dataclass(frozen=True, kw_only=True)
class KafkaSettings:
    """The brokers and how to reach them; `timeout` is in seconds."""

    hosts: tuple[str, ...]
    timeout: float
    properties: dict[str, str] = field(repr=False)
    """Settings of librdkafka, including passwords."""
    token: TokenProvider | None = field(default=None, repr=False)
    """What logs in with tokens, if anything does."""
    password: Callable[[], str] | None = field(default=None, repr=False)
    """What reads a password that may change."""

    def with_password(self, password: str | None) -> dict[str, str]:
        """The settings of librdkafka, with this password if there is one."""
        return self.properties if password is None else self.properties | {_PASSWORD: password}

    def one_per_request(self) -> "KafkaSettings":
        """The same, for a producer that never puts two messages into one request."""
        return replace(self, properties={**self.properties, "batch.num.messages": "1"})

    def for_runs(self) -> "KafkaSettings":
        """The same, for a producer that stores nothing behind a message that is not stored.

        Its messages never time out, since the messages behind one that timed out would be sent.
        One request at a time is on its way. A refusal stops the producer for good.
        """
        runs = {
            "message.timeout.ms": "0",
            "max.in.flight.requests.per.connection": "1",
            "enable.gapless.guarantee": "true",
        }
        return replace(self, properties={**self.properties, **runs})

    def __str__(self) -> str:
        return f"Kafka at {', '.join(self.hosts)}"


def parse_kafka_url(url: str) -> KafkaSettings:
    """Parse a URL and its config file. Raises `SettingsError`, whose text contains no password."""
    try:
        login, hosts, query = split_hosts(url, _PORT)
    except ValueError:
        # `from None`: the text of the cause may contain the URL.
        raise SettingsError(f"{_KIND} is {_FORM}") from None
    given = read_parameters(_KIND, query, KafkaParameters)
    milliseconds = max(1, round(given.timeout * 1000))
    # A listener that is silent in the handshake must be the reason before the time is over.
    setup = {"socket.connection.setup.timeout.ms": str(max(1000, milliseconds // 2))}
    file = _file(given.config)
    properties = _DEFAULTS | setup | file | _security(login, given, file)
    properties |= {
        "bootstrap.servers": ",".join(hosts),
        "enable.idempotence": "true",
        "acks": "all",
        "message.timeout.ms": str(milliseconds),
        # Report a missing topic before its messages time out.
        "topic.metadata.propagation.max.ms": str(milliseconds // 2),
    }
    token = None if given.token is None else msk_tokens(tuple(hosts), given.region)
    password_file = given.password_file
    return KafkaSettings(
        hosts=hosts,
        timeout=given.timeout,
        properties=properties,
        token=token,
        password=None if password_file is None else partial(_password, password_file),
    )


def _security(login: str, given: KafkaParameters, file: dict[str, str]) -> dict[str, str]:
    """The settings of the URL for TLS and the login; those of its file must not contradict them."""
    user, password = split_login(login)
    if given.token is not None:
        own = _token_login(given, has_login=bool(user or password))
    elif given.region is not None:
        raise SettingsError(f"region of {_KIND} needs token={_MSK}")
    else:
        own = _login(user, password, given, file)
    protocol = _protocol(given, file, logs_in=bool(own))
    own |= given.tls_files
    for name in own:
        if file.get(name, own[name]) != own[name]:
            rule = f"sets {name} to another value than the URL: leave one of them out"
            raise SettingsError(f"config of {_KIND}: {given.config} {rule}")
    return own | protocol


def _protocol(given: KafkaParameters, file: dict[str, str], *, logs_in: bool) -> dict[str, str]:
    """The protocol that the URL and its file ask for: either may ask for TLS, and for a login."""
    tls = True if given.token is not None else given.tls
    said = file.get(_PROTOCOL, "")
    has_tls = said.lower().endswith("ssl") if tls is None else tls
    if not has_tls and given.tls_files:
        raise SettingsError(f"ca, cert and key of {_KIND} need tls=yes")
    if tls is None and not logs_in:
        return {}
    login = "sasl_" if logs_in or said.lower().startswith("sasl") else ""
    protocol = f"{login}{'ssl' if has_tls else 'plaintext'}"
    rule = ""
    if said.lower() not in ("", protocol):
        rule = f"sets {_PROTOCOL}={said}, and the URL means {protocol}: let both say the same"
    elif tls is None and not said and any(name.startswith("ssl.") for name in file):
        # Without this, the password would go in clear although the file prepares TLS.
        rule = "has settings of TLS: write tls=yes, or tls=no, into the URL"
    if rule:
        raise SettingsError(f"config of {_KIND}: {given.config} {rule}")
    return {_PROTOCOL: protocol}


def _token_login(given: KafkaParameters, *, has_login: bool) -> dict[str, str]:
    if given.token != _MSK:
        raise SettingsError(f"token of {_KIND} must be {_MSK}, got {given.token!r}")
    if has_login or given.mechanism is not None or given.password_file is not None:
        rule = "is the login: leave out USER:PASSWORD@, mechanism and password_file"
        raise SettingsError(f"token of {_KIND} {rule}")
    if given.tls is False:
        raise SettingsError(f"token of {_KIND} needs TLS: leave out tls=no")
    return {_MECHANISM: "OAUTHBEARER"}


def _login(
    user: str, password: str | None, given: KafkaParameters, file: dict[str, str]
) -> dict[str, str]:
    if given.password_file is not None:
        if not user or password is not None:
            raise SettingsError(f"password_file of {_KIND} needs USER@ before the host")
        password = _password(given.password_file)
    if not user and password is None:
        if given.mechanism is not None:
            raise SettingsError(f"mechanism of {_KIND} needs USER:PASSWORD@ before the host")
        return {}
    if password is None:
        raise SettingsError(
            f"a login of {_KIND} is USER:PASSWORD@, each percent-encoded, or has a password_file"
        )
    return {
        _MECHANISM: given.mechanism or file.get(_MECHANISM, "PLAIN"),
        "sasl.username": user,
        _PASSWORD: password,
    }


def _password(file: Path) -> str:
    return read_text(_KIND, "password_file", file).strip()


def _file(path: Path | None) -> dict[str, str]:
    """Read ``name=value`` lines, as in Kafka's client.properties; ``#`` starts a comment."""
    if path is None:
        return {}
    lines = read_text(_KIND, "config", path).splitlines()
    found: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not name:
            raise SettingsError(f"config of {_KIND}: {path}:{number} is not name=value")
        if name in _OWN:
            raise SettingsError(f"config of {_KIND}: {path}:{number} sets {name}, which is fixed")
        if _OBJECTS.fullmatch(name):
            rule = f"sets {name}, whose value is no text"
            raise SettingsError(f"config of {_KIND}: {path}:{number} {rule}")
        found[_MECHANISM if name == "sasl.mechanisms" else name] = value  # an alias of librdkafka
    return found
