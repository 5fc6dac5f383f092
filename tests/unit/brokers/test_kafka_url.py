"""What a ``kafka://`` URL and its file may say."""

from pathlib import Path

import pytest

from dsql_outbox.brokers.kafka.url import parse_kafka_url
from dsql_outbox.outbox import SettingsError

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


SCRAM = "SCRAM-SHA-512"


@pytest.mark.parametrize(
    ("url", "lines", "expected"),
    [
        ("joe:p@a", "security.protocol=SASL_SSL", ("sasl_ssl", "PLAIN", "joe", "p")),
        ("joe:p@a", "security.protocol=sasl_plaintext", ("sasl_plaintext", "PLAIN", "joe", "p")),
        ("joe:p@a", f"sasl.mechanism={SCRAM}", ("sasl_plaintext", SCRAM, "joe", "p")),
        ("joe:p@a", f"sasl.mechanisms={SCRAM}", ("sasl_plaintext", SCRAM, "joe", "p")),
        (
            f"joe:p@a?tls=yes&mechanism={SCRAM}",
            f"security.protocol=SASL_SSL\nsasl.mechanism={SCRAM}\nsasl.username=joe",
            ("sasl_ssl", SCRAM, "joe", "p"),
        ),
        ("a?tls=yes", "security.protocol=SASL_SSL\nsasl.username=ann", ("sasl_ssl", None, "ann")),
        ("a?tls=yes", "security.protocol=ssl", ("ssl",)),
        ("a?tls=no", "security.protocol=SASL_PLAINTEXT", ("sasl_plaintext",)),
        ("a?ca=/ca.pem", "security.protocol=ssl", ("ssl",)),
        ("joe:p@a?tls=no", "ssl.ca.location=/ca.pem", ("sasl_plaintext", "PLAIN", "joe", "p")),
        ("a?token=msk&region=x", "security.protocol=SASL_SSL", ("sasl_ssl", "OAUTHBEARER")),
    ],
)
def test_the_url_and_the_file_make_one_login(
    tmp_path: Path, url: str, lines: str, expected: tuple[str | None, ...]
) -> None:
    found = security(with_file(tmp_path, url, lines))

    assert found == (*expected, *[None] * (4 - len(expected)))


@pytest.mark.parametrize(
    ("url", "lines", "rule"),
    [
        (
            "joe:s3cret@a?tls=no",
            "security.protocol=SASL_SSL",
            "sets security.protocol=SASL_SSL, and the URL means sasl_plaintext",
        ),
        (
            "joe:s3cret@a?tls=yes",
            "security.protocol=SASL_PLAINTEXT",
            "sets security.protocol=SASL_PLAINTEXT, and the URL means sasl_ssl",
        ),
        (
            "joe:s3cret@a",
            "security.protocol=SSL",
            "sets security.protocol=SSL, and the URL means sasl_ssl",
        ),
        (
            "joe:s3cret@a",
            "security.protocol=plaintext",
            "sets security.protocol=plaintext, and the URL means sasl_plaintext",
        ),
        (
            "a?tls=yes",
            "security.protocol=plaintext",
            "sets security.protocol=plaintext, and the URL means ssl",
        ),
        (
            "a?token=msk&region=x",
            "security.protocol=sasl_plaintext",
            "sets security.protocol=sasl_plaintext, and the URL means sasl_ssl",
        ),
        (
            "joe:s3cret@a",
            "ssl.ca.location=/ca.pem",
            "has settings of TLS: write tls=yes, or tls=no",
        ),
        ("joe:s3cret@a", "sasl.username=ann", "sets sasl.username to another value than the URL"),
        ("joe:s3cret@a", "sasl.password=s3cret2", "sets sasl.password to another value than the"),
        (
            "joe:s3cret@a?mechanism=PLAIN",
            f"sasl.mechanisms={SCRAM}",
            "sets sasl.mechanism to another value than the URL",
        ),
        (
            "a?token=msk&region=x",
            "sasl.mechanism=PLAIN",
            "sets sasl.mechanism to another value than the URL",
        ),
        (
            "a?tls=yes&ca=/one.pem",
            "ssl.ca.location=/two.pem",
            "sets ssl.ca.location to another value than the URL",
        ),
    ],
)
def test_a_url_and_a_file_that_contradict_each_other_are_refused(
    tmp_path: Path, url: str, lines: str, rule: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_kafka_url(with_file(tmp_path, url, lines))

    assert rule in str(refused.value)
    assert "client.properties" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def with_file(folder: Path, url: str, lines: str) -> str:
    """The URL with a file of these lines."""
    file = folder / "client.properties"
    file.write_text(f"{lines}\n")
    return f"kafka://{url}{'&' if '?' in url else '?'}config={file}"


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


@pytest.mark.parametrize(
    "line", ["stats_cb=x", "oauth_cb=x", "error_cb=x", "default.topic.config=x", "logger=x"]
)
def test_a_setting_of_the_file_whose_value_is_no_text_is_refused(line: str, tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text(f"linger.ms=5\n{line}\n")
    with pytest.raises(SettingsError, match=r":2 sets [a-z_.]+, whose value is no text"):
        parse_kafka_url(f"kafka://a?config={file}")


def test_reports_of_errors_alone_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("delivery.report.only.error=true\n")
    with pytest.raises(SettingsError, match="which is fixed"):
        parse_kafka_url(f"kafka://a?config={file}")
