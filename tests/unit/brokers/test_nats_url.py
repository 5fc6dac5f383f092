"""What a ``nats://`` URL may say."""

from pathlib import Path

import pytest

from dsql_outbox.brokers.nats.url import parse_nats_url
from dsql_outbox.outbox import SettingsError

JWT_AND_SEED = "-----BEGIN NATS USER JWT-----\n..\n-----BEGIN USER NKEY SEED-----\n..\n"


def test_the_defaults_are_these() -> None:
    settings = parse_nats_url("nats://localhost")

    assert settings.servers == ["nats://localhost:4222"]
    assert (settings.user, settings.password, settings.token) == (None, None, None)
    assert (settings.timeout, settings.stream, settings.subjects) == (5.0, None, ("events.>",))
    assert settings.creds is None


def test_several_hosts_share_the_login_and_the_scheme() -> None:
    settings = parse_nats_url("tls://joe:p%40%2C@a,b:1,[::1],[::2]:3")

    assert settings.servers == ["tls://a:4222", "tls://b:1", "tls://[::1]:4222", "tls://[::2]:3"]
    assert (settings.user, settings.password, settings.token) == ("joe", "p@,", None)


def test_a_login_without_a_password_is_a_token() -> None:
    settings = parse_nats_url("nats://t%2Fk@a")

    assert (settings.user, settings.password, settings.token) == (None, None, "t/k")


def test_parameters_are_read(tmp_path: Path) -> None:
    creds = tmp_path / "user.creds"
    creds.write_text(JWT_AND_SEED)

    settings = parse_nats_url(f"nats://a?timeout=0.5&stream=S&subjects=a.%3E,b.*&creds={creds}")

    assert (settings.timeout, settings.stream) == (0.5, "S")
    assert settings.subjects == ("a.>", "b.*")
    assert settings.creds == creds


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("nats://", "a NATS URL is nats://"),
        ("nats:a", "a NATS URL is nats://"),
        ("nats://joe:s3cret@", "a NATS URL is nats://"),
        ("nats://joe:s3cret@a,", "a NATS URL is nats://"),
        ("nats://joe:s3cret@a:port", "a NATS URL is nats://"),
        ("nats://joe:s3cret@[::1", "a NATS URL is nats://"),
        ("nats://joe:s3cret@a\u2100", "a NATS URL is nats://"),
        ("nats://joe:s3cret@a/path", "a NATS URL is nats://"),
        ("nats://joe:s3cret@a?tiemout=1", "unknown in a NATS URL: tiemout; known are ca, cert, "),
        ("nats://joe:s3cret@a?timeout=", "timeout of a NATS URL must be seconds above 0, got ''"),
        ("nats://joe:s3cret@a?timeout=0", "must be seconds above 0"),
        ("nats://joe:s3cret@a?timeout=nan", "must be seconds above 0"),
        ("nats://joe:s3cret@a?timeout=inf", "must be seconds above 0"),
        ("nats://joe:s3cret@a?stream=", "stream of a NATS URL must not be empty"),
        ("nats://joe:s3cret@a?stream=a.b", "or hold . * > / \\: 'a.b'"),
        ("nats://joe:s3cret@a?subjects=a", "subjects of a NATS URL are those of its stream"),
        ("nats://a?creds=/missing", "creds of a NATS URL: cannot read /missing"),
        ("nats://a?creds=/dev/null", "/dev/null holds no user JWT and seed"),
        ("nats://a?nkey=/missing", "nkey of a NATS URL: cannot read /missing"),
        ("nats://a?nkey=/dev/null", "/dev/null holds no seed of a user (SU..)"),
        (
            "nats://joe:s3cret@a?creds=/dev/null",
            "a NATS URL has one login: text before the @, creds,",
        ),
        ("nats://a?creds=/dev/null&nkey=/dev/null", "a NATS URL has one login"),
        ("nats://secret@a?token_file=/dev/null", "a NATS URL has one login"),
        ("nats://a?token_file=/missing", "token_file of a NATS URL: cannot read /missing"),
        (
            "nats://joe:s3cret@a?stream=S&replicas=0",
            "replicas of a NATS URL must be 1 to 5, got '0'",
        ),
        (
            "nats://joe:s3cret@a?stream=S&replicas=6",
            "replicas of a NATS URL must be 1 to 5, got '6'",
        ),
        ("nats://joe:s3cret@a?stream=S&replicas=", "replicas of a NATS URL must be 1 to 5, got ''"),
        (f"nats://a?stream=S&replicas={'7' * 4301}", "replicas of a NATS URL must be 1 to 5, got"),
        ("nats://joe:s3cret@a:\n", "a NATS URL is nats://"),
        ("nats://a?creds=/x%00y", "creds of a NATS URL must not hold a NUL"),
        ("nats://a?nkey=/x%00y", "nkey of a NATS URL must not hold a NUL"),
        ("nats://a?token_file=%00", "token_file of a NATS URL must not hold a NUL"),
        ("nats://joe:s3cret@a?replicas=3", "replicas of a NATS URL are those of its stream"),
        ("nats://joe:s3cret@a?ca=/x", "ca, cert and key of a NATS URL need tls:// instead of"),
        ("tls://joe:s3cret@a?cert=/x", "cert and key of a NATS URL go together"),
        ("tls://joe:s3cret@a?key=/x", "cert and key of a NATS URL go together"),
        ("tls://joe:s3cret@a?ca=/missing", "cannot use the PEM file /missing: "),
        ("tls://joe:s3cret@a?ca=/dev/null", "cannot use the PEM file /dev/null: "),
        ("tls://joe:s3cret@a?cert=/x&key=/y", "cannot use the PEM file /x, /y: "),
    ],
)
def test_what_breaks_a_rule_is_refused_without_showing_the_password(url: str, rule: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_nats_url(url)

    assert rule in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_settings_do_not_show_the_login() -> None:
    settings = parse_nats_url("nats://joe:s3cret@a")

    assert "s3cret" not in repr(settings)
    assert str(settings) == "NATS at a:4222"
