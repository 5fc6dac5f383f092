"""What a ``rabbitmq://`` URL may say."""

from pathlib import Path

import pytest

from dsql_outbox.brokers.rabbitmq.url import parse_rabbitmq_url
from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher.sinks import Destination


def test_the_defaults_are_these() -> None:
    settings = parse_rabbitmq_url("rabbitmq://localhost")

    assert settings.hosts == (Destination(host="localhost", port=5672),)
    assert (settings.user, settings.password) == ("guest", "guest")
    assert (settings.vhost, settings.given.exchange, settings.given.timeout) == (
        "/",
        "amq.topic",
        5.0,
    )
    assert settings.tls is None
    assert settings.given.mandatory


@pytest.mark.parametrize(("scheme", "port"), [("amqp", 5672), ("amqps", 5671)])
def test_the_url_of_a_provider_is_taken_as_it_is(scheme: str, port: int) -> None:
    settings = parse_rabbitmq_url(f"{scheme}://joe:p%40@cat.rmq.example/joe?mandatory=no")

    assert settings.hosts == (Destination(host="cat.rmq.example", port=port),)
    assert (settings.user, settings.password, settings.vhost) == ("joe", "p@", "joe")
    assert (settings.tls is not None) == (scheme == "amqps")
    assert not settings.given.mandatory


def test_several_hosts_share_the_login_and_the_virtual_host() -> None:
    settings = parse_rabbitmq_url("rabbitmqs://joe:p%40%2F@a,b:1,[::1]/sh%2Fop?exchange=&timeout=2")

    assert [(host.host, host.port) for host in settings.hosts] == [
        ("a", 5671),
        ("b", 1),
        ("::1", 5671),
    ]
    assert (settings.user, settings.password) == ("joe", "p@/")
    assert (settings.vhost, settings.given.exchange, settings.given.timeout) == ("sh/op", "", 2.0)
    assert settings.tls is not None


def test_a_password_in_a_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    settings = parse_rabbitmq_url(f"rabbitmq://joe@a?password_file={file}")

    assert settings.password == "first"
    file.write_text("second")
    assert settings.password == "second"


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("rabbitmq://", "a RabbitMQ URL is rabbitmq://"),
        ("rabbitmq:a", "a RabbitMQ URL is rabbitmq://"),
        ("rabbitmq://joe:s3cret@", "a RabbitMQ URL is rabbitmq://"),
        ("rabbitmq://joe:s3cret@a,", "a RabbitMQ URL is rabbitmq://"),
        ("rabbitmq://joe:s3cret@a:port", "a RabbitMQ URL is rabbitmq://"),
        ("rabbitmq://joe:s3cret/@a", "a RabbitMQ URL is rabbitmq://"),
        ("rabbitmq://joe:/s3cret@a", "a RabbitMQ URL is rabbitmq://"),
        ("rabbitmq://joe:12/s3cret@a", "a RabbitMQ URL is rabbitmq://"),
        ("rabbitmq://joe:12/s3cret@a/shop?timeout=2", "a RabbitMQ URL is rabbitmq://"),
        ("rabbitmq://joe:s3cret@a/shop/x", "a RabbitMQ URL is rabbitmq://"),
        ("rabbitmq://joe:s3cret@a/shop%00", "virtual host of a RabbitMQ URL has at most 255"),
        (f"rabbitmq://joe:s3cret@a/{'é' * 128}", "virtual host of a RabbitMQ URL has at most 255"),
        ("rabbitmq://joe@a", "a login of a RabbitMQ URL is USER:PASSWORD@"),
        ("rabbitmq://:s3cret@a", "a login of a RabbitMQ URL is USER:PASSWORD@"),
        ("rabbitmq://a?password_file=/dev/null", "a login of a RabbitMQ URL is USER:PASSWORD@"),
        ("rabbitmq://joe:s3cret@a?password_file=/dev/null", "a RabbitMQ URL has one password"),
        ("rabbitmq://joe@a?password_file=/missing", "password_file of a RabbitMQ URL: cannot read"),
        ("rabbitmq://joe:s3cret@a?exchange=a%0Ab", "exchange of a RabbitMQ URL has up to 127"),
        (f"rabbitmq://joe:s3cret@a?exchange={'x' * 128}", "exchange of a RabbitMQ URL has up to"),
        ("rabbitmq://joe:s3cret@a?timeout=0", "timeout of a RabbitMQ URL must be seconds above 0"),
        ("rabbitmq://joe:s3cret@a?vhost=x", "unknown in a RabbitMQ URL: vhost; known are ca, "),
        ("rabbitmq://joe:s3cret@a?ca=/x", "a RabbitMQ URL need rabbitmqs:// instead of rabbitmq:"),
        ("amqp://joe:s3cret@a?ca=/x", "a RabbitMQ URL need amqps:// instead of amqp:"),
        ("amqp://joe:s3cret@a?mandatory=0", "mandatory of a RabbitMQ URL must be yes or no"),
        ("rabbitmqs://joe:s3cret@a?cert=/x", "cert and key of a RabbitMQ URL go together"),
    ],
)
def test_a_malformed_url_is_refused_without_its_password(url: str, rule: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_rabbitmq_url(url)

    assert rule in str(refused.value)
    assert "s3cret" not in str(refused.value)
