"""What may be shown: no part of a password, no control character, no row of the database."""

import json
import logging
import unicodedata

import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.support.checkout import ROOT

from dsql_outbox.brokers.kafka.url import parse_kafka_url
from dsql_outbox.brokers.nats.url import parse_nats_url
from dsql_outbox.cli.main import main
from dsql_outbox.observability.shown_text import visible, visible_json
from dsql_outbox.outbox import Database, SettingsError
from dsql_outbox.outbox.redaction import error_line, redacted
from dsql_outbox.publisher import open_sink

SECRET = "Qz7xK"
"""Nothing else in these URLs and texts holds it."""

odd = st.text(alphabet="ab:/?#@, %[]=&;\\'\"\t", max_size=4)
secrets = st.builds(lambda a, b, c: f"{a}{SECRET}{b}{SECRET}{c}", odd, odd, odd)
schemes = st.sampled_from(["nats", "tls", "kafka", "sqs", "http", "https", "postgresql", "other"])
hosts = st.sampled_from(["host", "host:4222", "h1,h2:1", "[::1]:3", "", "host/", "host?timeout=1"])
logins = st.one_of(secrets, st.builds("user:{}".format, secrets))
urls = st.builds("{}://{}@{}".format, schemes, logins, hosts)


@given(urls)
def test_no_part_of_a_login_is_shown(url: str) -> None:
    assert SECRET not in redacted(url)


@given(urls)
def test_no_part_of_a_login_is_in_an_error_or_in_the_name_of_a_broker(url: str) -> None:
    for parse in (parse_nats_url, parse_kafka_url):
        try:
            shown = str(parse(url))
        except SettingsError as error:
            shown = f"{error} {error.__cause__}"
        assert SECRET not in shown


@given(st.builds("postgresql://{}@{}".format, logins, hosts))
def test_no_part_of_a_login_is_in_the_name_of_a_database(url: str) -> None:
    try:
        shown = repr(Database(url))
    except SettingsError as error:
        shown = f"{error} {error.__cause__}"
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://me:s3cret@host:4222?creds=/x", "nats://host:4222"),
        ("nats://h1,h2:1", "nats://h1,h2:1"),
        ("nats://tok?TAIL@h", "nats://.."),
        ("nats://tok#TAIL@h", "nats://.."),
        ("nats://tok/TAIL@h", "nats://.."),
        ("nats://host?password=x@TAIL", "nats://.."),
        ("nats://user:pass", "nats://.."),
        ("nats://tok@", "nats://.."),
        ("nats:tok@host", "a URL that cannot be shown"),
        ("jsonl:/a@b/events.jsonl", "jsonl:/a@b/events.jsonl"),
        ("stdout:", "stdout:"),
    ],
)
def test_a_url_is_shown_as_its_hosts(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    "words",
    [
        ["publish", "--database", "x", "--sink", f"nats://tok?{SECRET}@h"],
        ["publish", "--database", "x", "--sink", f"{SECRET}@h"],
        ["publish", "--database", "x", "--sink", f"{SECRET}:a@h"],
        ["status", "--database", f"postgresql://me:a/{SECRET}@h/x"],
        ["status", "--database", f"postgresql://me:a?{SECRET}@h/x"],
        ["status", "--database", f"{SECRET}:me@h"],
        *(
            ["console", "--database", "x", "--jaeger", f"http://{login}@127.0.0.1:1"]
            for login in (f"me:{SECRET}", f"me:a/{SECRET}", f"me:a?{SECRET}", f"me:a#{SECRET}")
        ),
    ],
)
def test_no_command_prints_a_part_of_a_password(words: list[str]) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code in (2, 69)
    assert isinstance(done.exception, SystemExit)
    assert SECRET not in done.output


def test_a_sink_of_an_unknown_kind_is_not_quoted() -> None:
    with pytest.raises(SettingsError) as raised:
        open_sink(f"{SECRET}@host")
    assert SECRET not in str(raised.value)


@given(st.text())
def test_nothing_that_controls_a_terminal_is_left(text: str) -> None:
    kinds = {unicodedata.category(character) for character in visible(text)}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    assert not set(visible(text)) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def test_other_text_stays_as_it_is() -> None:
    text = "Größe ✓ \\n 𝄞 עברית"
    assert visible(text) == text
    assert visible("\x1b]52;c;x\x07\r\n\x9b2J\u202e") == (r"\x1b]52;c;x\x07\x0d\x0a\x9b2J\u202e")


@given(st.text())
def test_json_stays_the_same_json(text: str) -> None:
    line = json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    shown = visible_json(line)
    assert json.loads(shown) == {"text": text}
    assert visible(shown.decode()) == shown.decode()


def test_a_record_of_the_library_has_visible_values(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("dsql_outbox")
    logger.warning("to %s: %s", "a\x1b[2J\nforged", ValueError("\x9b1m"))
    assert caplog.messages == [r"to a\x1b[2J\x0aforged: \x9b1m"]


def test_of_an_error_of_the_driver_the_rows_are_left_out() -> None:
    text = 'duplicate key\nDETAIL:  Key (id)=(Qz7xK) already exists.\nCONTEXT:  line "Qz7xK"'
    assert error_line(psycopg.errors.UniqueViolation(text)) == "duplicate key"
    assert error_line(psycopg.OperationalError()) == "OperationalError"
    syntax = 'syntax error at or near "x"\nLINE 1: SELECT Qz7xK x\n               ^'
    assert SECRET not in error_line(psycopg.errors.SyntaxError(syntax))


def test_what_libpq_asks_about_an_address_is_left_out() -> None:
    host = 'connection to server at "{}", port 5432 failed: Connection refused'
    asks = "\n\tIs the server running on that host and accepting TCP/IP connections?"
    both = f"failed:\n- host: 'a': {host.format('a')}{asks}\n- host: 'b': {host.format('b')}{asks}"
    found = error_line(psycopg.OperationalError(both))
    assert found == f"failed: - host: 'a': {host.format('a')} - host: 'b': {host.format('b')}"


def test_text_reaches_the_terminal_in_one_place() -> None:
    """`output` makes it visible. `schema print` prints our SQL, `main`, `demo` own words."""
    folder = ROOT / "src" / "dsql_outbox" / "cli"
    found = {path for path in folder.rglob("*.py") if "click.echo(" in path.read_text()}
    own_words = ("main", "demo.command", "demo.kept", "schema")
    paths = (folder.joinpath(*name.split(".")).with_suffix(".py") for name in own_words)
    assert found == {folder / "output.py", *paths}
