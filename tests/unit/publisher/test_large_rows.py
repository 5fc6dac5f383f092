"""Large rows: a read returns about `batch_bytes`, and less where the link is thin."""

from collections.abc import Sequence

import pytest
from tests.support.publisher.given_rows import row
from tests.support.publisher.virtual_relay import (
    Answering,
    MemoryOutbox,
    in_virtual_time,
    relay_until,
)

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, Retry
from dsql_outbox.publisher.tuned_settings import TunedSettings

SETTINGS = TunedSettings(batch_bytes=1 << 20, backoff_base=1.0)


class FailingFirst(Answering):
    """A sink that refuses each message once."""

    def __init__(self) -> None:
        super().__init__(lambda _: 0.005)
        self._refused: set[str] = set()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        known = [n for n, each in enumerate(messages) if each.dedupe_id in self._refused]
        for index, message in enumerate(messages):
            if message.dedupe_id not in self._refused:
                self._refused.add(message.dedupe_id)
                answer(index, Retry("not now"))
        again = [messages[n] for n in known]
        await super().publish(again, lambda n, outcome: answer(known[n], outcome))


@pytest.mark.parametrize(("number", "size"), [(60, 50_000), (300, 20_000), (10, 700_000)])
def test_failed_rows_that_are_large_come_in_turn(number: int, size: int) -> None:
    store, sink = MemoryOutbox(), FailingFirst()
    store.insert([row(str(n), n, payload="x" * size) for n in range(1, number + 1)])
    in_virtual_time(relay_until(store, sink, lambda: not store.rows, settings=SETTINGS))
    due = SETTINGS.batch_bytes // 4
    assert max(store.returned) <= SETTINGS.batch_bytes + due + 2 * size  # a range has one row


@pytest.mark.parametrize("bandwidth", [60_000, 15_000])
def test_a_read_that_is_too_large_for_the_link_is_halved(bandwidth: int) -> None:
    store, sink = MemoryOutbox(bandwidth), FailingFirst()
    store.insert([row(str(n), n, payload="x" * 100_000) for n in range(1, 21)])
    in_virtual_time(relay_until(store, sink, lambda: not store.rows, settings=SETTINGS))
    assert len(sink.delivered) == 20
