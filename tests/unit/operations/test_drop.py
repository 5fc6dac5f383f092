"""How many dead letters one transaction drops."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from dsql_outbox.operations.drop import _size
from dsql_outbox.operations.pages import count_fitting
from dsql_outbox.operations.requeue import MAX_BYTES, MAX_ROWS
from dsql_outbox.operations.undelivered import Keyed, UndeliveredMessage

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
def test_rows_payload_and_headers_are_bounded_and_one_always_goes(
    count: int, payload: int, headers: int, sizes: list[int]
) -> None:
    left = [_size(letter(payload=payload, headers=headers)) for _ in range(count)]
    found: list[int] = []
    while left:
        found.append(count_fitting(left, rows=MAX_ROWS, bytes_=MAX_BYTES))
        del left[: found[-1]]
    assert found == sizes
