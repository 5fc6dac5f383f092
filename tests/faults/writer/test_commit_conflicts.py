"""A conflict that shows only at COMMIT, as Aurora DSQL's do.

A deferred constraint trigger stands in for it: the statement has run and has
sent its rows when the commit fails.
"""

from functools import partial

import psycopg
import pytest
from psycopg import errors
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, Facts, OpenWriter, outcome_of
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import AttemptEnded
from dsql_outbox.outbox import Database, Event

EVENTS = [workload_s.car_created(), workload_s.three_entities()]
ISOLATIONS = ["repeatable read", "read committed"]


def fail_at_commit(tables: Tables, times: int, sqlstate: str = "40001") -> None:
    """Make the next commits of events fail; a sequence counts, since no rollback undoes it."""
    tables.execute("CREATE SEQUENCE outbox.commits")
    tables.execute(
        f"""CREATE FUNCTION outbox.fail_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          IF nextval('outbox.commits') <= {times} THEN
            RAISE EXCEPTION 'change conflicts with another transaction, please retry: (OC000)'
              USING errcode = '{sqlstate}';
          END IF;
          RETURN NULL;
        END $$"""
    )
    tables.execute(
        "CREATE CONSTRAINT TRIGGER fails_at_commit AFTER INSERT ON outbox.business_events"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION outbox.fail_at_commit()"
    )


def test_the_stand_in_fails_at_commit_and_not_before(url: str, tables: Tables) -> None:
    """The control of the tests below."""
    fail_at_commit(tables, times=1)
    with psycopg.connect(url) as connection:
        cursor = connection.execute(
            "INSERT INTO outbox.business_events (id, event_name, event_type, saved_date,"
            " event_data, fingerprint, write_id, subject_type, subject_id, subject_version,"
            " shard, position, topic, touches, event_size, previous_position)"
            " VALUES (gen_random_uuid(), 'n', 't', now(), '{}', '', gen_random_uuid(),"
            " 't', 'i', 1, 0, 1, 't', '[]', 2, 0) RETURNING id"
        )
        assert cursor.fetchone() is not None
        with pytest.raises(errors.SerializationFailure):
            connection.commit()


@pytest.mark.pairs
@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("event", EVENTS, ids=["1 entity", "3 entities"])
@pytest.mark.parametrize("sqlstate", ["40001", "OC000"])
def test_a_conflict_at_commit_is_retried_like_one_of_a_statement(
    open_writer: OpenWriter,
    url: str,
    tables: Tables,
    facts: Facts,
    event: Event,
    sqlstate: str,
    isolation: str,
) -> None:
    """Facts 4 and 15: a result that came before the failure is not believed."""
    fail_at_commit(tables, times=2, sqlstate=sqlstate)
    database = Database(url, isolation=isolation)  # type: ignore[arg-type]
    receipt = open_writer(database, hooks=[facts]).write(event)
    assert (receipt.attempts, receipt.conflicts) == (3, 2)
    outcomes = [fact.outcome for fact in facts.of(AttemptEnded)]
    assert outcomes == ["conflict", "conflict", "committed"]
    assert [touched.version for touched in receipt.entities] == [1] * len(event.entities)
    tables.assert_true_to({event.id: receipt})


@pytest.mark.parametrize("event", EVENTS, ids=["1 entity", "3 entities"])
def test_conflicts_at_every_commit_leave_no_row_in_any_table(
    open_writer: OpenWriter, url: str, tables: Tables, event: Event
) -> None:
    """Facts 4, 9 and 15."""
    fail_at_commit(tables, times=100)
    error = outcome_of(partial(open_writer(url).write, event))
    assert isinstance(error, errors.SerializationFailure)
    assert str(error).startswith("change conflicts with another transaction")
    assert tables.events() == tables.headers() == tables.entities() == tables.messages() == []


def test_many_events_over_a_conflicting_commit_stay_complete(
    open_writer: OpenWriter, proxy: PostgresProxy, tables: Tables
) -> None:
    """Fact 15: the statement is prepared by then, and its connection may be reused."""
    caller = open_writer(Database(proxy.url), QUICK)
    receipts = [caller.write(workload_s.car_created()) for _ in range(8)]
    fail_at_commit(tables, times=2)
    receipts += [caller.write(workload_s.car_created()) for _ in range(3)]
    assert [receipt.attempts for receipt in receipts] == [1] * 8 + [3, 1, 1]
    tables.assert_true_to({receipt.event_id: receipt for receipt in receipts})
