"""How many dead letters one transaction drops."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from dsql_outbox.operations.messages import _batches
from dsql_outbox.operations.undelivered import Keyed, UndeliveredMessage

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)


def letter(*, payload: int, headers: int) -> Keyed:
    found = UndeliveredMessage(
        state="dead",
        type="t",
        retry_at=None,
        behind=False,
        paused=False,
        event_id=uuid4(),
        died_at=NOW,
        subject="Car/1",
        subject_version=1,
        topic="t",
        error="no",
        attempts=1,
        replay=0,
        created_at=NOW,
        shard=0,
        position=1,
        headers={"entities": "x" * headers},
        payload_bytes=payload,
    )
    return Keyed((str(found.event_id), str(NOW)), found)


@pytest.mark.parametrize(
    ("count", "payload", "headers", "sizes"),
    [
        (1_001, 10, 10, [500, 500, 1]),
        (9, 1 << 20, 0, [4, 4, 1]),
        (9, 0, 1 << 20, [4, 4, 1]),
        (3, 5 << 20, 0, [1, 1, 1]),
        (0, 0, 0, []),
    ],
)
async def test_rows_payload_and_headers_are_bounded_and_one_always_goes(
    count: int, payload: int, headers: int, sizes: list[int]
) -> None:
    async def letters() -> AsyncIterator[Keyed]:
        for _ in range(count):
            yield letter(payload=payload, headers=headers)

    assert [len(batch) async for batch in _batches(letters())] == sizes
