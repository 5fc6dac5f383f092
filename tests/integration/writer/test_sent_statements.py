"""What our connections send, seen at the wire: nothing that Aurora DSQL is known to refuse."""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import pytest
from click.testing import CliRunner
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.sql import lint
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Publisher, PublisherSettings, Rejected, Retry
from dsql_outbox.schema import apply
from dsql_outbox.schema.comparison import check
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import AsyncWriter, Transaction, Writer

pytestmark = pytest.mark.anyio


def bare(statements: Iterable[str]) -> set[str]:
    return {re.sub(r"--.*", "", text).strip() for text in statements}


def refused(statements: Iterable[str]) -> list[str]:
    return [text for text in statements if lint.refused(text)]


@pytest.mark.parametrize("form", ["single", "plain"])
def test_a_writer_sends_nothing_that_dsql_refuses(proxy: PostgresProxy, form: str) -> None:
    settings = replace(QUICK, form=form)  # type: ignore[arg-type]

    def work(transaction: Transaction) -> None:
        transaction.connection.execute("SELECT 1")
        transaction.append(workload_s.car_created("other"))

    def broken(transaction: Transaction) -> None:
        transaction.append(workload_s.car_created("broken"))
        raise KeyError

    with Writer(Database(proxy.url), settings) as writer:
        for n in range(12):  # psycopg prepares a statement at its sixth use
            writer.write(workload_s.car_created(f"car {n}"))
        receipt = writer.write(workload_s.three_entities())
        writer.write_many([workload_s.loan_created(n) for n in range(20)])
        proxy.refuse(2)
        writer.write(workload_s.payment_submitted(1))
        proxy.cut("after_commit")
        writer.write(workload_s.payment_submitted(2))
        writer.transact(work)
        with suppress(KeyError):
            writer.transact(broken)
        first = receipt.entities[0]
        assert list(writer.stream(first.entity_type, first.entity_id))
    assert len(bare(proxy.statements)) > 5
    assert refused(proxy.statements) == []


async def test_tasks_send_nothing_that_dsql_refuses(proxy: PostgresProxy) -> None:
    async with AsyncWriter(Database(proxy.url), replace(QUICK, coalesce=1)) as writer:
        for n in range(12):
            await writer.write(workload_s.car_created(f"car {n}"))
    assert bare(proxy.statements)
    assert refused(proxy.statements) == []


async def test_a_publisher_sends_nothing_that_dsql_refuses(url: str, proxy: PostgresProxy) -> None:
    events = [workload_s.loan_created(n) for n in range(20)]
    with Writer(Database(url)) as writer:
        writer.write_many(events)
    sink = MemorySink()
    sink.fail(events[0].id, Retry("not now"))
    sink.fail(events[1].id, Rejected("never"))
    settings = PublisherSettings(backoff_base=0.001)
    done = await Publisher(Database(proxy.url), sink, settings).run(until_empty=True)
    assert (done.deleted, done.failed, done.dead) == (19, 1, 1)
    assert refused(proxy.statements) == []


def test_commands_send_nothing_that_dsql_refuses(proxy: PostgresProxy) -> None:
    database = Database(proxy.url)
    apply(database)
    check(database)
    for words in (
        ["status"],
        ["doctor", "--probe"],
        ["messages", "list"],
    ):
        done = CliRunner().invoke(main, [*words, "--database", proxy.url])
        assert done.exit_code == 0, done.output
    assert refused(proxy.statements) == []
