"""What a ``redis://`` URL may say, and what errors of the server blame."""

from pathlib import Path

import pytest
from redis.exceptions import AskError, MovedError, OutOfMemoryError, ResponseError

from dsql_outbox.brokers.redis.refusal import blames_server, outcome_of
from dsql_outbox.brokers.redis.url import RedisParameters, parse_redis_url
from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher.sinks import Destination


def test_the_defaults_are_these() -> None:
    settings = parse_redis_url("redis://localhost")

    assert settings.hosts == (Destination(host="localhost", port=6379),)
    assert (settings.database, settings.user, settings.password) == (0, None, None)
    assert settings.given == RedisParameters(
        timeout=5.0, maxlen=None, field="payload", fsync=False, replicas=0
    )
    assert not settings.has_tls


def test_everything_of_a_url_is_read(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")

    whole = parse_redis_url(
        f"rediss://joe@[::1]:7000/12?password_file={file}&timeout=0.5&maxlen=1000&fsync=yes&replicas=2"
    )

    assert whole.hosts == (Destination(host="::1", port=7000),)
    assert (whole.database, whole.user, whole.password) == (12, "joe", None)
    assert whole.has_tls
    assert whole.given == RedisParameters(
        password_file=file, timeout=0.5, maxlen=1000, fsync=True, replicas=2
    )


def test_the_hosts_of_a_sentinel_are_those_of_sentinels(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    url = f"redis://:p@a,b:1/2?sentinel=shop&sentinel_password_file={file}"

    settings = parse_redis_url(url)

    assert settings.hosts == (Destination(host="a", port=26379), Destination(host="b", port=1))
    assert (settings.given.sentinel, settings.database, settings.password) == ("shop", 2, "p")
    assert settings.given.sentinel_password_file == file
    assert str(settings) == "Redis shop of Sentinel at a:26379, b:1"


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("redis://:p%40%2F1@h/3", (None, "p@/1")),
        ("redis://joe:p@h", ("joe", "p")),
        ("redis://joe:@h", ("joe", "")),
    ],
)
def test_a_login_is_decoded(url: str, login: tuple[str | None, str]) -> None:
    settings = parse_redis_url(url)

    assert (settings.user, settings.password) == login
    assert settings.hosts[0].host == "h"


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("redis://", "a Redis URL is redis://"),
        ("redis:h", "a Redis URL is redis://"),
        ("redis://joe:s3cret@a,b", "a Redis URL has one host, or sentinel=NAME"),
        ("redis://joe:s3cret@a,?sentinel=x", "a Redis URL is redis://"),
        ("redis://joe:s3cret@a,b?sentinel=", "sentinel of a Redis URL is a name of 1 to 80"),
        (
            "redis://joe:s3cret@a?sentinel_password_file=/dev/null",
            "a Redis URL needs sentinel=NAME",
        ),
        ("redis://a?sentinel=x&sentinel_password_file=/missing", "cannot read /missing"),
        ("redis://joe:s3cret@a/b", "a Redis URL is redis://"),
        ("redis://joe:s3cret@a/1/2", "a Redis URL is redis://"),
        ("redis://joe:s3cret@a/-1", "a Redis URL is redis://"),
        ("redis://joe:s3cret@a?db=1", "unknown in a Redis URL: db; known are ca, cert, field, "),
        ("redis://joe:s3cret@a?field=ce-id", "field of a Redis URL is a name of 1 to 100"),
        ("redis://joe:s3cret@a?field=", "field of a Redis URL is a name of 1 to 100"),
        ("redis://joe:s3cret@a?timeout=0", "timeout of a Redis URL must be seconds above 0"),
        ("redis://joe:s3cret@a?maxlen=0", "maxlen of a Redis URL must be 1 or more, got '0'"),
        ("redis://joe:s3cret@a?maxlen=", "maxlen of a Redis URL must be 1 or more, got ''"),
        ("redis://joe:s3cret@a?maxlen=1e3", "maxlen of a Redis URL must be 1 or more"),
        (f"redis://a?maxlen={'7' * 4301}", "maxlen of a Redis URL must be 1 or more"),
        ("redis://joe:s3cret@a?replicas=-1", "replicas of a Redis URL must be 0 or more, got '-1'"),
        ("redis://joe:s3cret@a?fsync=always", "fsync of a Redis URL must be yes or no"),
        ("redis://joe@a", "the user of a Redis URL needs a password"),
        ("redis://joe:s3cret@a?password_file=/dev/null", "a Redis URL has one password"),
        ("redis://a?password_file=/missing", "password_file of a Redis URL: cannot read /missing"),
        ("redis://joe:s3cret@a?ca=/x", "ca, cert and key of a Redis URL need rediss:// instead of"),
        ("rediss://joe:s3cret@a?cert=/x", "cert and key of a Redis URL go together"),
        ("rediss://joe:s3cret@a?ca=/dev/null", "cannot use the PEM file /dev/null: "),
    ],
)
def test_what_breaks_a_rule_is_refused_without_showing_the_password(url: str, rule: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_redis_url(url)

    assert rule in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_settings_do_not_show_the_login() -> None:
    settings = parse_redis_url("redis://joe:s3cret@a/1")

    assert "s3cret" not in repr(settings)
    assert str(settings) == "Redis at a:6379"


@pytest.mark.parametrize(
    "refusal",
    [
        # As the parser of redis-py has them: it takes the code off if it has a class for it.
        OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        ResponseError("MISCONF Redis is configured to save RDB snapshots, but .."),
        ResponseError("NOREPLICAS Not enough good replicas to write."),
        ResponseError("BUSY Redis is busy running a script."),
        ResponseError("Transaction discarded because of: OOM command not allowed .."),
    ],
)
def test_a_refusal_of_every_write_blames_the_server(refusal: ResponseError) -> None:
    assert blames_server(refusal)


@pytest.mark.parametrize("kind", [MovedError, AskError])
def test_a_redirection_blames_the_topic(kind: type[AskError]) -> None:
    moved = kind("3999 10.0.0.7:6381")

    assert not blames_server(moved)
    assert outcome_of("events.X", 2, moved).error.startswith("events.X belongs to another node")


def test_an_error_without_a_known_code_blames_the_topic() -> None:
    refusal = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")

    assert not blames_server(refusal)
    assert "WRONGTYPE" in outcome_of("events.X", 2, refusal).error
