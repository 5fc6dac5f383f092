"""Publishers in processes of their own, each with a sink that acknowledges at once.

``python -m benchmarks.growth.publisher_process URL ROWS`` relays in batches of ROWS until
its input ends, and prints what it delivered.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any, NamedTuple

import psycopg
from benchmarks.relay.nats import part
from tests.support.waiting import wait_until

from dsql_outbox import Database, Publisher, PublisherSettings
from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, Delivered

_PATIENCE = 60.0  # seconds until every publisher owns shards
_DELIVERED = Delivered()


class Relayed(NamedTuple):
    """The deliveries of publishers; `disordered` messages came after a newer one of their key.

    The times from the commit until the sink has a message are seconds.
    """

    delivered: int
    disordered: int
    p50: float
    p99: float


class _Sink:
    """Acknowledges every message at once, and notes delay and order."""

    system = "null"

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.disordered = 0
        self._newest: dict[str, int] = {}

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        now = time.time_ns()
        for index, message in enumerate(messages):
            version = int(message.headers["sequence"])
            self.disordered += self._newest.get(message.key, 0) > version
            self._newest[message.key] = version
            self.delays.append((now - message.committed_ns) / 1e9)
            answer(index, _DELIVERED)


@contextmanager
def publishers(url: str, number: int, batch_rows: int) -> Iterator[list[Relayed]]:
    """Run publishers, each with a share of the shards, during the block.

    The list has what each of them delivered when the block has ended.
    """
    command = [sys.executable, "-m", "benchmarks.growth.publisher_process", url, str(batch_rows)]
    found: list[Relayed] = []
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(number)
        ]
        try:
            _wait_for_owners(url, number)
            yield found
        except BaseException:
            for process in running:
                process.terminate()
            raise
        found += [_ended(process) for process in running]


def together(found: Sequence[Relayed]) -> Relayed:
    """Add up the deliveries of all; the quantiles are those of the slowest."""
    return Relayed(
        sum(each.delivered for each in found),
        sum(each.disordered for each in found),
        max(each.p50 for each in found),
        max(each.p99 for each in found),
    )


def _ended(process: "subprocess.Popen[str]") -> Relayed:
    answer, _ = process.communicate()
    return Relayed(**json.loads(answer))


def _wait_for_owners(url: str, number: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        wait_until(lambda: _owners(connection) == number, timeout=_PATIENCE)


def _owners(connection: psycopg.Connection[Any]) -> int:
    ((owners,),) = connection.execute(
        "SELECT count(DISTINCT owner) FROM outbox.outbox_leases"
        " WHERE owner IS NOT NULL AND expires_at > clock_timestamp()"
    ).fetchall()
    return int(owners)


async def _relay(url: str, batch_rows: int, ends: IO[Any]) -> None:
    sink = _Sink()
    async with Publisher(Database(url), sink, PublisherSettings(batch_rows=batch_rows)):
        await asyncio.to_thread(ends.read)
    delays = sorted(sink.delays) or [0.0]
    found = Relayed(len(sink.delays), sink.disordered, part(delays, 0.5), part(delays, 0.99))
    print(json.dumps(found._asdict()))


if __name__ == "__main__":
    asyncio.run(_relay(sys.argv[1], int(sys.argv[2]), sys.stdin))
