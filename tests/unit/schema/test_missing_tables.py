"""Missing tables: nothing was made here, tables are older, or somebody has dropped them."""

import pytest

from dsql_outbox.schema.missing_tables import describe
from dsql_outbox.schema.tables import expected_shape

ALL = set(expected_shape())
PLACE = "database shop at db:5432"


def told(missing: set[str], *, recorded: set[str]) -> str:
    found = describe("outbox", PLACE, ALL - missing, recorded)
    return str(found)


def test_nothing_is_said_of_a_schema_that_has_all() -> None:
    assert describe("outbox", PLACE, ALL, ALL) is None


@pytest.mark.parametrize("present", [None, set[str]()])
def test_a_schema_that_is_gone_names_the_database_and_warns_of_a_new_one(
    present: set[str] | None,
) -> None:
    found = str(describe("mine", PLACE, present, set()))
    assert PLACE in found
    assert "check the URL, and restore" in found
    assert "`dsql-outbox schema apply --schema mine` makes it new and empty" in found


def test_older_tables_are_told_from_dropped_ones() -> None:
    new = {"outbox_fills", "outbox_jobs"}
    older, dropped = told(new, recorded=ALL - new), told(new, recorded=ALL)
    assert "older than this program" in older
    assert "keeps all messages" in older
    assert "dropped" in dropped
    assert "keeps all messages" not in dropped
    assert all(name in text for name in new for text in (older, dropped))


def test_an_inbox_without_other_tables_is_told_from_tables_that_were_dropped() -> None:
    inbox = set(expected_shape("inbox"))
    assert "has the tables of the inbox alone" in told(ALL - inbox, recorded=inbox)
    assert "dropped" in told(ALL - inbox, recorded=ALL)
    assert "dropped" in told(ALL - inbox | {"inbox"}, recorded=inbox)
