"""A selection of messages, as options of the command line, as a query, and in SQL."""

import shlex
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, urlencode
from uuid import UUID

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.cli.messages.selection_options import selection_options
from dsql_outbox.operations import Selection
from dsql_outbox.operations.operator_commands import Commands
from dsql_outbox.operations.selection import STATES
from dsql_outbox.outbox import SettingsError
from dsql_outbox.outbox.message import subject_key

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1)
SUBJECTS = st.one_of(
    st.builds(subject_key, TEXTS, TEXTS), TEXTS.map(lambda text: subject_key(text, "")[:-1])
)
NAIVE = datetime.fromisoformat("0002-01-01")
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(NAIVE, datetime.fromisoformat("9998-01-01"), timezones=ZONES)


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    """Any selection that is valid."""
    state = draw(st.sampled_from([None, *STATES]))
    since, until = sorted(draw(st.tuples(TIMES, TIMES).filter(lambda two: two[0] != two[1])))
    return Selection(
        state=state,
        ids=tuple(draw(st.lists(st.uuids(), max_size=3))),
        target=draw(st.none() | TEXTS),
        subject=draw(st.none() | SUBJECTS),
        topic=draw(st.none() | TEXTS),
        type=draw(st.none() | TEXTS),
        error=None if state == "waiting" else draw(st.none() | TEXTS),
        since=draw(st.sampled_from([None, since])),
        until=draw(st.sampled_from([None, until])),
        blocked=state in {None, "failing"} and draw(st.booleans()),
    )


def of_words(words: list[str]) -> Selection:
    """The selection that a command gets from its options."""
    got: list[Selection] = []

    @click.command()
    @selection_options()
    @click.option("--all", "every", is_flag=True)
    def command(*, which: Selection, every: bool) -> None:
        assert every is which.selects_all
        got.append(which)

    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    return got[0]


@given(selections())
def test_the_command_to_copy_selects_the_same_messages(which: Selection) -> None:
    shown = Commands("outbox").messages("retry", which)
    assert of_words([*which.words(), *["--all"] * which.selects_all]) == which
    if not shown.startswith("#"):  # a control character is not shown
        words = shlex.split(shown)
        assert words[:3] == ["dsql-outbox", "messages", "retry"]
        assert of_words(words[3:]) == which
        assert Commands("outbox").messages("retry", of_words(words[3:])) == shown


@given(selections())
def test_the_query_of_a_page_selects_the_same_messages(which: Selection) -> None:
    query = urlencode(which.texts(), doseq=True)
    assert Selection.parse(parse_qs(query, keep_blank_values=True)) == which


@given(selections())
def test_a_selection_reads_the_states_that_can_match(which: Selection) -> None:
    assert set(which.states) <= set(STATES)
    assert which.states
    if which.state is not None:
        assert which.states == (which.state,)
    assert which.parameters().keys() == Selection().parameters().keys()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"state": "lost"}, "state is one of failing, dead, waiting, got 'lost'"),
        ({"subject": "Car/"}, "'Car/' is no TYPE/ID"),
        ({"subject": "Car/%ff"}, "no UTF-8"),
        ({"subject": "%ff"}, "no UTF-8"),
        ({"subject": ""}, "subject must not be empty"),
        ({"topic": "a\0b"}, "topic must not be empty or contain the character NUL"),
        ({"type": "\udcff"}, "type must be UTF-8"),
        ({"error": "no", "state": "waiting"}, "a waiting message has no error"),
        ({"blocked": True, "state": "dead"}, "a message in state dead is not blocked"),
        ({"blocked": True, "state": "waiting"}, "a message in state waiting is not blocked"),
        ({"since": NAIVE}, "since needs a time zone"),
        (
            {"since": datetime(2026, 1, 2, tzinfo=UTC), "until": datetime(2026, 1, 2, tzinfo=UTC)},
            "is not before until",
        ),
    ],
)
def test_a_value_that_no_message_has_is_refused_before_anything_is_read(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        Selection(**fields)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"id": ["7"]}, "'7' is no id of an event"),
        ({"since": ["yesterday"]}, "'yesterday' is no time in ISO 8601"),
        ({"until": ["999999d"]}, "'999999d' is no time in ISO 8601"),
        ({"since": ["0001-01-01T00:00+23:59"]}, "since is outside the years 1 to 9999 in UTC"),
        ({"since": [""]}, "'' is no time in ISO 8601"),
    ],
)
def test_a_text_that_is_no_value_is_refused(texts: dict[str, list[str]], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Selection.parse(texts)


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("90d", timedelta(days=90)),
        ("2h", timedelta(hours=2)),
        ("15m", timedelta(minutes=15)),
        ("30s", timedelta(seconds=30)),
    ],
)
def test_an_age_is_a_time_before_now(text: str, age: timedelta) -> None:
    before = datetime.now(UTC)
    found = Selection.parse({"until": [text]}).until
    assert found is not None
    assert before - age <= found <= datetime.now(UTC) - age


def test_a_time_without_a_zone_is_in_utc_and_an_unknown_name_counts_not() -> None:
    which = Selection.parse({"since": ["2026-11-24T10:00"], "page": ["7"], "after": ["x"]})
    assert which == Selection(since=datetime(2026, 11, 24, 10, tzinfo=UTC))
    assert which.parameters()["since"] == "2026-11-24T10:00:00+00:00"


def test_sql_gets_the_parts_of_a_subject_and_all_its_ids() -> None:
    which = Selection(subject="Car/c%206", ids=(UUID(int=1), UUID(int=2)))
    parameters = which.parameters()
    assert (parameters["subject_type"], parameters["subject_id"]) == ("Car", "c 6")
    assert str(UUID(int=2)) in parameters["event_ids"]
    assert Selection(subject="Car").parameters()["subject_id"] is None
