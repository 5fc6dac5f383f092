"""What the nemesis sees of a broker: all that is sent, and all that is stored."""

import anyio
import pytest
from benchmarks.nemesis.fleet import until
from benchmarks.nemesis.load import digest
from benchmarks.nemesis.world import Ear, delivered, make_stream

from dsql_outbox.publisher import open_sink
from dsql_outbox.testing import NatsServer
from dsql_outbox.testing.sink_contract import deliver, new_message

pytestmark = pytest.mark.anyio


async def test_a_message_that_the_stream_drops_as_known_is_heard_all_the_same() -> None:
    ear = Ear()
    first, other = (new_message(f"Loan/{n}", sequence=str(n)) for n in (1, 2))
    with NatsServer() as broker:
        await make_stream(broker.url)
        async with ear.listening(broker.url), open_sink(broker.url) as sink:
            await deliver(sink, [first, other])
            await deliver(sink, [first])
            stored = await delivered(broker.url)
            with anyio.fail_after(5):
                await until(lambda: ear.sent_again > 0)
    assert ear.sent_again == 1
    found = [(each.event_id, each.key, each.sequence, each.digest) for each in stored]
    assert found[:2] == [
        (first.event_id, "Loan/1", 1, digest(first.payload)),
        (other.event_id, "Loan/2", 2, digest(other.payload)),
    ]
