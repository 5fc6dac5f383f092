"""Which messages do not go to RabbitMQ beside others, and which not at all for a while."""

import asyncio

import pytest

from dsql_outbox.brokers.rabbitmq.doubts import Doubts
from dsql_outbox.testing.sink_contract import new_message

pytestmark = pytest.mark.anyio


async def test_a_topic_is_in_doubt_until_a_message_of_it_was_taken() -> None:
    doubts = Doubts()
    doubts.add(["a", "b"])
    doubts.note_taken("a")
    assert [doubts.has(topic) for topic in ("a", "b", "c")] == [False, True, False]


async def test_a_stuck_channel_forbids_its_key_and_four_of_a_topic_forbid_the_topic() -> None:
    doubts, endings = Doubts(), [asyncio.create_task(asyncio.sleep(60)) for _ in range(4)]
    for n, ending in enumerate(endings):
        assert not doubts.forbids(new_message("Loan/other", topic="a"))
        doubts.note_stuck(new_message(f"Loan/{n}", topic="a"), ending)
    assert doubts.forbids(new_message("Loan/other", topic="a"))
    assert not doubts.forbids(new_message("Loan/0", topic="b"))

    doubts.note_taken("a")
    assert not doubts.forbids(new_message("Loan/other", topic="a"))
    assert doubts.forbids(new_message("Loan/0", topic="a"))

    endings[0].cancel()
    await asyncio.wait([endings[0]])
    assert not doubts.forbids(new_message("Loan/0", topic="a"))
    for ending in endings[1:]:
        ending.cancel()
    await asyncio.wait(endings)
    assert not doubts.has("a")
