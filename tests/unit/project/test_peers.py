"""The comparison with peers: its ratios, and the order that a sink counts. Nothing runs."""

import asyncio
import json

from benchmarks.peers.children.relayed import PER_KEY, CountingSink, key_of, ordered_events
from benchmarks.peers.contestants import ComparedLine
from benchmarks.peers.peer_process import Measured
from benchmarks.peers.peer_table import rows as table_rows

BATCHES = ComparedLine("batch", "batches", "floor", 100)


def test_a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians() -> None:
    measured = {
        "floor": [Measured(100.0), Measured(200.0), Measured(400.0)],
        "slow": [Measured(50.0, 9.0), Measured(20.0, 7.0), Measured(100.0, 8.0)],
    }
    floor, slow = table_rows(BATCHES, measured)
    assert (floor.ratio, slow.ratio) == (1.0, 0.25)
    assert (floor.median("cpu"), slow.median("cpu")) == (None, 8.0)
    assert "0.25" in str(slow)
    assert json.loads(json.dumps(slow.as_json()))["median"] == 50.0


def test_the_sink_counts_messages_that_come_after_a_newer_one_of_their_key() -> None:
    first, second, other = ordered_events(PER_KEY - 2, 3)

    async def disordered(*payloads: bytes) -> int:
        sink = CountingSink(len(payloads))
        for payload in payloads:
            sink.take(payload)
        await sink.all()
        return sink.disordered

    assert asyncio.run(disordered(second, other, first)) == 1
    assert asyncio.run(disordered(first, other, second)) == 0
    assert key_of(second) == key_of(first) != key_of(other)
