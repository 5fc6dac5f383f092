"""What a ``kafka://`` URL says."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher.sinks.url import TIMEOUT, parameters, seconds, split_hosts, split_login

_KIND: Final = "a Kafka URL"
_FORM: Final = "kafka://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]..][?PARAMETERS]"
_PARAMETERS: Final = ("config", "mechanism", "timeout", "tls")
_PORT: Final = 9092

_DEFAULTS: Final = {
    "client.id": "dsql-outbox",
    # Java's way to choose a partition: the same key lands where a Java producer puts it.
    "partitioner": "murmur2_random",
    # A broker that is back is found within a second, not ten.
    "reconnect.backoff.max.ms": "1000",
    # The broker's limit decides, not librdkafka's own of 1,000,000 bytes.
    "message.max.bytes": "100000000",
}
"""What the file of `config` may change."""

_OWN: Final = (
    "acks",
    "bootstrap.servers",
    "enable.idempotence",
    "message.timeout.ms",
    "metadata.broker.list",
    "request.required.acks",
    "delivery.timeout.ms",
    "topic.metadata.propagation.max.ms",
    "transactional.id",
)
"""What the file may not set: order and "at least once" rest on it, or the URL says it."""


@dataclass(frozen=True, kw_only=True)
class KafkaSettings:
    """Where Kafka is and how to speak with it; `timeout` is seconds."""

    hosts: tuple[str, ...]
    timeout: float
    properties: dict[str, str] = field(repr=False)
    """Settings of librdkafka, passwords among them."""

    def __str__(self) -> str:
        return f"Kafka at {', '.join(self.hosts)}"


def parse_kafka_url(url: str) -> KafkaSettings:
    """Read a URL and the file it names; raises `SettingsError`, which never shows a password."""
    try:
        login, hosts, query = split_hosts(url, _PORT)
    except ValueError:
        # Not its cause, whose text may show the URL.
        raise SettingsError(f"{_KIND} is {_FORM}") from None
    given = parameters(_KIND, query, _PARAMETERS)
    timeout = seconds(_KIND, given.get("timeout", TIMEOUT))
    milliseconds = max(1, round(timeout * 1000))
    properties = _DEFAULTS | _file(given.get("config")) | _security(login, given)
    properties |= {
        "bootstrap.servers": ",".join(hosts),
        "enable.idempotence": "true",
        "acks": "all",
        "message.timeout.ms": str(milliseconds),
        # A topic that is missing is known to be, before its messages run out of time.
        "topic.metadata.propagation.max.ms": str(milliseconds // 2),
    }
    return KafkaSettings(hosts=hosts, timeout=timeout, properties=properties)


def _security(login: str, given: dict[str, str]) -> dict[str, str]:
    tls = given.get("tls", "no")
    if tls not in ("yes", "no"):
        raise SettingsError(f"tls of {_KIND} must be yes or no, got {tls!r}")
    transport = "ssl" if tls == "yes" else "plaintext"
    user, password = split_login(login)
    if not user and password is None:
        if "mechanism" in given:
            raise SettingsError(f"mechanism of {_KIND} needs USER:PASSWORD@ before the host")
        return {"security.protocol": transport} if "tls" in given else {}
    if password is None:
        raise SettingsError(f"a login of {_KIND} is USER:PASSWORD@, each percent-encoded")
    return {
        "security.protocol": f"sasl_{transport}",
        "sasl.mechanism": given.get("mechanism", "PLAIN"),
        "sasl.username": user,
        "sasl.password": password,
    }


def _file(path: str | None) -> dict[str, str]:
    """Lines ``name=value``, as in Kafka's own client.properties; # starts a comment."""
    if path is None:
        return {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"config of {_KIND}: cannot read {path}") from error
    found: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not name:
            raise SettingsError(f"config of {_KIND}: {path}:{number} is not name=value")
        if name in _OWN:
            raise SettingsError(f"config of {_KIND}: {path}:{number} sets {name}, which is fixed")
        found[name] = value
    return found
