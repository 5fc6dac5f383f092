"""The connection of an operator: each statement ends in time, also on a link that is silent."""

from collections.abc import AsyncGenerator
from itertools import pairwise

import psycopg
import pytest
from tests.support.proxy.postgres_proxy import PostgresProxy

from dsql_outbox.outbox import Database
from dsql_outbox.schema import session
from dsql_outbox.schema.session import Session, SessionTransaction

pytestmark = pytest.mark.anyio

LATE = "before the deadline"


@pytest.fixture
async def operator(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Session]:
    monkeypatch.setattr(session, "STATEMENT_TIMEOUT", 1.0)
    operator = Session(Database(proxy.url))
    yield operator
    await operator.close()


async def shards(operator: Session) -> list[int]:
    return [shard for (shard,) in await operator.fetch_rows("shard_list", {})]


async def test_a_read_ends_and_the_next_one_has_a_new_connection(
    proxy: PostgresProxy, operator: Session
) -> None:
    assert await shards(operator) == list(range(16))
    proxy.stall(1, matching="outbox_leases")
    with pytest.raises(psycopg.OperationalError, match=LATE):
        await shards(operator)
    assert await shards(operator) == list(range(16))


async def test_a_change_ends(proxy: PostgresProxy, operator: Session) -> None:
    proxy.stall(1, matching="outbox_publishers")
    with pytest.raises(psycopg.OperationalError, match=LATE):
        await operator.execute("publisher_withdraw", {"owner": "a"})
    assert await operator.execute("publisher_withdraw", {"owner": "a"}) == 0


@pytest.mark.parametrize("matching", ["BEGIN", "outbox_publishers", "COMMIT"])
async def test_each_statement_of_a_transaction_ends(
    proxy: PostgresProxy, operator: Session, matching: str
) -> None:
    async def work(transaction: SessionTransaction) -> int:
        parameters: dict[str, object] = {"owner": "a", "lease": 1.0, "paused": "[]"}
        parameters |= {"target": "default", "waits": False}
        return await transaction.execute("publisher_announce", parameters)

    proxy.stall(1, matching=matching)
    with pytest.raises(psycopg.OperationalError, match=LATE):
        await operator.transaction(work)
    assert await operator.transaction(work) == 1


async def test_a_transaction_may_take_longer_than_each_of_its_statements(
    operator: Session,
) -> None:
    ends: list[float | None] = []

    async def work(transaction: SessionTransaction) -> None:
        for _ in range(2):
            ends.append(transaction._connection.deadline)
            await transaction.fetch_rows("shard_list", {})
        ends.append(transaction._connection.deadline)

    await operator.transaction(work)
    assert operator._connection.current is not None
    ends.append(operator._connection.current.deadline)  # of COMMIT
    moves = [after - before for before, after in pairwise(filter(None, ends))]
    assert len(moves) == 3
    assert min(moves) > 0
