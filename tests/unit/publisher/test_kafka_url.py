"""What a ``kafka://`` URL and its file may say."""

from pathlib import Path

import pytest

from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher.sinks.kafka.url import parse_kafka_url

SECURITY = ("security.protocol", "sasl.mechanism", "sasl.username", "sasl.password")


def security(url: str) -> tuple[str | None, ...]:
    properties = parse_kafka_url(url).properties
    return tuple(properties.get(name) for name in SECURITY)


def test_the_defaults_are_these() -> None:
    settings = parse_kafka_url("kafka://localhost")

    assert settings.hosts == ("localhost:9092",)
    assert settings.timeout == 5.0
    assert settings.properties == {
        "bootstrap.servers": "localhost:9092",
        "enable.idempotence": "true",
        "acks": "all",
        "message.timeout.ms": "5000",
        "topic.metadata.propagation.max.ms": "2500",
        "socket.connection.setup.timeout.ms": "2500",
        "client.id": "dsql-outbox",
        "partitioner": "murmur2_random",
        "reconnect.backoff.max.ms": "1000",
        "message.max.bytes": "100000000",
    }


def test_several_hosts_and_a_timeout_are_read() -> None:
    settings = parse_kafka_url("kafka://a,b:1,[::1]?timeout=0.5")

    assert settings.hosts == ("a:9092", "b:1", "[::1]:9092")
    assert settings.properties["bootstrap.servers"] == "a:9092,b:1,[::1]:9092"
    assert settings.properties["message.timeout.ms"] == "500"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("kafka://a", (None, None, None, None)),
        ("kafka://a?tls=yes", ("ssl", None, None, None)),
        ("kafka://a?tls=no", ("plaintext", None, None, None)),
        ("kafka://joe:p%40%2C@a", ("sasl_plaintext", "PLAIN", "joe", "p@,")),
        (
            "kafka://joe:p@a?tls=yes&mechanism=SCRAM-SHA-512",
            ("sasl_ssl", "SCRAM-SHA-512", "joe", "p"),
        ),
    ],
)
def test_login_and_tls_choose_the_protocol(url: str, expected: tuple[str | None, ...]) -> None:
    assert security(url) == expected


def test_a_file_has_more_settings_and_may_hold_the_login(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text(
        "# comment\n\nsecurity.protocol=SASL_SSL\n sasl.password = a=b#c \nclient.id=me\n"
    )

    settings = parse_kafka_url(f"kafka://a?config={file}")

    assert settings.properties["security.protocol"] == "SASL_SSL"
    assert settings.properties["sasl.password"] == "a=b#c"
    assert settings.properties["client.id"] == "me"


def test_the_url_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("security.protocol=plaintext\nsasl.username=ann\n")

    assert security(f"kafka://joe:p@a?config={file}&tls=yes")[::2] == ("sasl_ssl", "joe")


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("kafka://", "a Kafka URL is kafka://"),
        ("kafka:a", "a Kafka URL is kafka://"),
        ("kafka://joe:s3cret@a/path", "a Kafka URL is kafka://"),
        ("kafka://joe:s3cret@a?acks=1", "unknown in a Kafka URL: acks; known are ca, cert, "),
        ("kafka://joe:s3cret@a?timeout=0", "timeout of a Kafka URL must be seconds above 0"),
        ("kafka://joe:s3cret@a?tls=true", "tls of a Kafka URL must be yes or no, got 'true'"),
        ("kafka://s3cret@a", "a login of a Kafka URL is USER:PASSWORD@"),
        ("kafka://a?mechanism=PLAIN", "mechanism of a Kafka URL needs USER:PASSWORD@"),
        ("kafka://joe:s3cret@a?config=/missing", "config of a Kafka URL: cannot read /missing"),
        ("kafka://joe:s3cret@a?config=/x%00y", "config of a Kafka URL must not hold a NUL"),
        ("kafka://joe@a?password_file=%00", "password_file of a Kafka URL must not hold a NUL"),
        ("kafka://a?tls=yes&ca=/\udc80", "must not hold a NUL or half a surrogate pair"),
        ("kafka://joe:s3cret@a:\t", "a Kafka URL is kafka://"),
    ],
)
def test_what_breaks_a_rule_is_refused_without_showing_the_password(url: str, rule: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_kafka_url(url)

    assert rule in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("s3cret", ":2 is not name=value"),
        ("=s3cret", ":2 is not name=value"),
        ("acks=1", ":2 sets acks, which is fixed"),
        ("enable.idempotence=false", ":2 sets enable.idempotence, which is fixed"),
        ("transactional.id=s3cret", ":2 sets transactional.id, which is fixed"),
    ],
)
def test_a_line_of_the_file_that_breaks_a_rule_is_named_and_not_shown(
    tmp_path: Path, line: str, rule: str
) -> None:
    file = tmp_path / "client.properties"
    file.write_text(f"client.id=me\n{line}\n")

    with pytest.raises(SettingsError) as refused:
        parse_kafka_url(f"kafka://a?config={file}")

    assert str(refused.value).endswith(f"{file}{rule}")
    assert "s3cret" not in str(refused.value)


def test_settings_do_not_show_the_login() -> None:
    settings = parse_kafka_url("kafka://joe:s3cret@a")

    assert "s3cret" not in repr(settings)
    assert str(settings) == "Kafka at a:9092"
