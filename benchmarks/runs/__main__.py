"""``make runs-kafka``: is what Kafka stores of a run always its first messages, in order?

Starts an Apache Kafka with one node, and one with three. Subjects send runs to it while it is
harmed, and go on as the relay does, from the first message without success. Then what is stored
is compared with the runs that were sent. A line of the table is a fault; ``cut`` are the runs of
which a part is stored. All counts to the right of it, up to ``misanswered``, must be 0.

Three ways to send are compared: librdkafka's producer (idempotent, one request in flight, no time
limit, dropped at our deadline), the same with ``enable.gapless.guarantee``, and the sink.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic
from traceback import print_exc
from typing import Final

from tests.support.brokers.apache_kafka import ApacheKafka, apache_kafka
from tests.support.brokers.java_servers import MissingJava

from dsql_outbox.brokers.kafka import runs
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Sink

from .bare_producer import BareProducer
from .kafka_faults import EXPIRING, Fault, copies, faults
from .trial import Findings, Trial, judge

_DEADLINE: Final = 3.0  # seconds that a run may take
_LATE: Final = 1.0  # seconds after the trial in which requests of dropped producers may arrive
_QUICK: Final = ("broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=500")
"""Settings with which a node that was killed may come back sooner."""

_WAYS: Final[Mapping[str, Mapping[str, object]]] = {
    "producer": {},
    "gapless": {"enable.gapless.guarantee": True},
    "sink": {},
}


@asynccontextmanager
async def _opened(
    way: str, bootstrap: str, settings: Callable[[], Mapping[str, object]]
) -> AsyncGenerator[Sink]:
    if way != "sink":
        bare = BareProducer(bootstrap, _DEADLINE, settings)
        try:
            yield bare
        finally:
            bare.close()
        return
    with TemporaryDirectory() as folder:
        file = Path(folder) / "properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in settings().items()))
        url = f"kafka://{bootstrap}?timeout={_DEADLINE}&config={file}"
        async with open_sink(url) as sink:
            yield sink


async def _examine(cluster: ApacheKafka, fault: Fault, way: str, times: int) -> Findings:
    random = Random(f"{fault.name} {way}")

    def settings() -> Mapping[str, object]:
        """Half of the producers cut a run into many requests."""
        size = random.choice([5, 10_000])
        split = {"batch.num.messages": size, "linger.ms": random.choice([0, 5])}
        return {**split, **fault.producer, **_WAYS[way]}

    async with _opened(way, cluster.proxied, settings) as sink:
        trial = Trial(sink, fault.shape, random)
        await trial.run(fault.harm, times)
    await asyncio.sleep(_LATE)
    stored = await asyncio.to_thread(copies, cluster, fault.shape.topic)
    return judge(trial.subjects, stored)


def _lines(nodes: int, ways: Iterable[str], only: str, times: int) -> Iterable[bool]:
    """Print a line per fault and way; yields whether the promise held."""
    for settings in (), EXPIRING:
        for way in ways:
            with (
                TemporaryDirectory(prefix="runs-kafka-") as folder,
                apache_kafka(Path(folder), nodes, settings=(*_QUICK, *settings)) as cluster,
            ):
                for fault in faults(cluster, forgets=bool(settings)):
                    if only not in fault.name:
                        continue
                    began = monotonic()
                    cluster.make_topic(fault.shape.topic, 1, **fault.topic)
                    head = f"{fault.name:<20} {nodes:>5} {way:<8} {times:>5}"
                    try:
                        found = asyncio.run(_examine(cluster, fault, way, times))
                    except Exception:  # noqa: BLE001 - the next fault shall have its turn
                        print_exc()
                        print(f"{head} failed, see the traceback", flush=True)
                        cluster.start()
                        yield False
                    else:
                        print(f"{head} {found}  {monotonic() - began:.0f} s", flush=True)
                        yield found.holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", default="1,3")
    parser.add_argument("--times", type=int, default=20, help="how often each fault happens")
    parser.add_argument("--only", default="", help="a part of the name of a fault")
    parser.add_argument("--ways", default="sink", help=f"of {', '.join(_WAYS)}")
    given = parser.parse_args()
    logging.disable()  # the failures are intended here
    runs.REST = 0.2  # type: ignore[misc] # so that runs, and not single messages, meet the faults
    print(f"{'fault':<20} nodes {'way':<8} times {Findings.TITLES}", flush=True)
    try:
        held = [
            line
            for nodes in map(int, given.nodes.split(","))
            for line in _lines(nodes, given.ways.split(","), given.only, given.times)
        ]
    except MissingJava as error:
        print(f"missing: {error}", flush=True)
        return 0
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
