"""How many messages a retry or a replay puts into one transaction."""

from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from dsql_outbox.operations.replay_positions import Candidate
from dsql_outbox.operations.requeue import MAX_BYTES, Requeue

pytestmark = pytest.mark.anyio


def candidate(number: int, headers: dict[str, str], size: int) -> Candidate:
    return Candidate(
        event_id=UUID(int=number),
        key=f"Car/{number}",
        type="CarMoved",
        topic="events.CarMoved",
        shard=0,
        at=datetime.now(UTC),
        headers=headers,
        size=size,
        last_position=0,
        replays=0,
        waiting=False,
        now_us=1,
    )


async def perform(work: Any) -> Any:
    return await work(None)


@pytest.mark.parametrize(
    ("headers", "size"), [({}, MAX_BYTES // 2 + 1), ({"own": "x" * (MAX_BYTES // 2)}, 0)]
)
async def test_payloads_and_headers_count_against_the_bytes_of_a_transaction(
    headers: dict[str, str], size: int
) -> None:
    found = [candidate(number, headers, size) for number in range(3)]

    async def candidates(_: object, keys: Sequence[Candidate]) -> list[Candidate]:
        return [*keys]

    session: Any = SimpleNamespace(transaction=perform)
    source: Any = SimpleNamespace(candidates=candidates)
    entry: Any = None
    step = await Requeue(session, source, entry, dry_run=True).change(found, 3)
    assert (step.settled, [each.status for each in step.told]) == (1, ["planned"])
