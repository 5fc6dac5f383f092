"""Many failed rows: an operator's changes are noticed, without reading all of them again."""

import anyio
from tests.support.publisher.given_rows import row
from tests.support.publisher.virtual_relay import (
    Answering,
    MemoryOutbox,
    in_virtual_time,
    relay_until,
)

from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.relay.store import Failure, StoredFailure, SubjectName

FAILED = 5_000


class Blocked(MemoryOutbox):
    """An outbox whose rows all failed, and wait for long."""

    def __init__(self) -> None:
        super().__init__()
        self.insert([row(str(n), n) for n in range(1, FAILED + 1)])
        self.failures_of = {row: Failure(row, "", 1, 1e6) for row in self.rows}

    async def stored_failures(self, shards: object) -> list[StoredFailure]:
        await super().stored_failures(shards)  # type: ignore[arg-type]
        return [
            StoredFailure(row, SubjectName("Car", self.rows[row].subject_id), 1, 1e6)
            for row in self.failures_of
        ]


def test_failures_are_read_together_only_once_and_a_change_is_noticed() -> None:
    store, sink = Blocked(), Answering(lambda _: 0.005)
    looks: list[int] = []

    async def operate(_relay: Relay) -> None:
        await anyio.sleep(31)
        looks.extend(store.asked_waits)
        del store.failures_of[next(key for key in store.failures_of if key.position == 4_321)]

    in_virtual_time(relay_until(store, sink, lambda: bool(sink.delivered), beside=operate))
    assert store.statements["failures"] == 1
    assert max(looks) <= FAILED / 5
    assert sum(looks) <= FAILED * 4
    assert [message.headers["position"] for message in sink.delivered] == ["4321"]
