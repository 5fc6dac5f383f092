"""Events that no message can carry: refused before anything is sent."""

from functools import partial
from typing import Any

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, Facts, OpenWriter, outcome_of
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import AttemptEnded, Fact, WriteStarted
from dsql_outbox.observability.hooks import Scope
from dsql_outbox.outbox import Database, EventTooLarge, InvalidEvent
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.client


def test_an_event_that_no_message_takes_is_refused_before_anything_is_sent(
    proxy: PostgresProxy, url: str, tables: Tables, facts: Facts
) -> None:
    """DSQL would drop the connection without a word, and the write would be in doubt."""
    event, fits = workload_s.many_entities('"' * 1_900), workload_s.many_entities('"' * 1_000)
    with Writer(Database(proxy.url), QUICK, hooks=[facts]) as writer, psycopg.connect(url) as mine:
        calls: list[Any] = [
            partial(writer.write, event),
            partial(writer.append_to, mine, event),
            lambda: writer.write_many([event])[0],
        ]
        errors = [outcome_of(call) for call in calls]
        assert (proxy.opened, facts.all) == (0, [])
        errors.append(outcome_of(lambda: writer.transact(lambda tx: tx.append(event))))
        assert [type(error) for error in errors] == [EventTooLarge] * 4
        assert {error.limit for error in errors} == {8 << 20}  # type: ignore[union-attr]
        assert "INSERT" not in "".join(proxy.statements)
        receipt = writer.write(fits)
    tables.assert_true_to({receipt.event_id: receipt})


class _Header:
    """A scope of somebody's own hook, that adds one header."""

    def __init__(self, name: str, value: Any) -> None:
        self.carrier: dict[str, str] = {name: value}

    def __call__(self, fact: Fact) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("name", "value"), [("x user", "v"), ("", "v"), ("x\r\ny", "v"), ("x", 7), ("x", "\ud800")]
)
def test_a_header_of_a_hook_that_no_broker_need_take_is_refused_before_anything_is_sent(
    open_writer: OpenWriter, url: str, tables: Tables, facts: Facts, name: str, value: Any
) -> None:
    def hook(fact: Fact) -> Scope | None:
        return _Header(name, value) if isinstance(fact, WriteStarted) else None

    writer = open_writer(url, QUICK, [hook, facts])
    error = outcome_of(partial(writer.write, workload_s.car_created()))
    assert isinstance(error, InvalidEvent)
    assert error.path == "headers"
    assert tables.events() == []
    assert facts.of(AttemptEnded) == []
