"""The lines of the relay at DEBUG: each step is told, and no message that is delivered is."""

import logging
from collections.abc import Sequence

import pytest
from tests.support.publisher.given_rows import row
from tests.support.publisher.virtual_relay import MemoryOutbox, in_virtual_time, relay_until

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, Delivered, Retry

ROWS = 2_000
BAD = row("bad", ROWS)


class FailingOnce:
    """Takes each message, but for the first try of the bad one."""

    system = "memory"
    keeps_prefix = True

    def __init__(self) -> None:
        self.delivered = 0

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """See `Sink.publish`."""
        for index, message in enumerate(messages):
            is_bad = str(message.event_id) == BAD.event_id and message.attempt == 1
            self.delivered += not is_bad
            answer(index, Retry("no") if is_bad else Delivered())


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_each_step_is_told_and_no_message_that_is_delivered(
    caplog: pytest.LogCaptureFixture, level: int
) -> None:
    store, sink = MemoryOutbox(), FailingOnce()
    store.insert([*(row(f"subject-{n}", n) for n in range(1, ROWS)), BAD])
    with caplog.at_level(level, logger="dsql_outbox"):
        in_virtual_time(relay_until(store, sink, lambda: not store.rows), now=5_000.0)
    told = [each for each in caplog.records if each.levelno == logging.DEBUG]
    if level > logging.DEBUG:
        assert not told
        return
    lines = [each.getMessage() for each in told]
    assert sink.delivered == ROWS
    assert len(lines) < ROWS / 20
    for step in ["read", "sent", "Deleted", "Recorded"]:
        assert any(step in line for line in lines), step
    (held,) = (line for line in lines if "subject waits" in line)
    assert BAD.event_id in held
