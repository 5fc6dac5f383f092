"""The goals of runs: a subject with many waiting messages, on real brokers and at a distance.

With them go the lines of other groups on what a row costs, with which a hot subject must keep up.
"""

import asyncio
import statistics

from benchmarks.measure import median_ratio
from benchmarks.relay.drain import drain_by_loop
from benchmarks.relay.rows import Rows, fill, new_database
from benchmarks.relay.to_broker import bare_kafka, bare_rabbitmq, relayed
from tests.support.brokers.java_servers import MissingJava
from tests.support.brokers.rabbitmq_broker import RabbitMqBroker
from tests.support.brokers.rabbitmq_server import MissingRabbitMq

from . import group_commit
from .conditions import Conditions
from .distance import delayed
from .goal import Goal, Line, NotMeasuredError, select
from .relay_goals import RELAY
from .writer_goals import WRITER

_TOPIC = "events.CarMoved"
_AWAY = 2.0  # milliseconds each way
_SLOW = 10  # times as many rows with runs as one at a time, so that both take about as long


def _kafka(conditions: Conditions) -> str:
    try:
        return f"kafka://{conditions.kafka.bootstrap}"
    except MissingJava as error:
        raise NotMeasuredError(str(error)) from error


def _nats(conditions: Conditions) -> str:
    return f"{conditions.broker.url}?stream=EVENTS"


def _hot(name: str, broker: str, conditions: Conditions) -> list[float]:
    """One subject: with runs over one message at a time, and CPU per message in us."""
    url, rows = new_database(conditions.server, "hot"), conditions.sizes.rows
    one, runs, cpu = list[float](), list[float](), list[float]()
    for _ in range(conditions.sizes.rounds):
        few = rows // _SLOW
        one.append(relayed(url, broker, Rows(few, per_key=few), takes_runs=False).rate)
        found = relayed(url, broker, Rows(rows, per_key=rows))
        runs.append(found.rate)
        cpu.append(found.cpu)
    print(f"  {name}: {statistics.median(one):,.0f} /s one at a time, "
          f"{statistics.median(runs):,.0f} /s by runs")  # fmt: skip
    return [median_ratio(runs, one), statistics.median(cpu)]


def _hot_kafka(conditions: Conditions) -> list[float]:
    return _hot("kafka", _kafka(conditions), conditions)


def _hot_nats(conditions: Conditions) -> list[float]:
    """The same to NATS, on this machine and at a distance."""
    near, _ = _hot("nats", _nats(conditions), conditions)
    with delayed(_nats(conditions), _AWAY) as broker:
        far, _ = _hot("nats, 2 ms away", broker, conditions)
    return [near, far]


def _ten(broker: str, conditions: Conditions) -> list[float]:
    """Ten rows of a subject in a row over far apart."""
    url, rows = new_database(conditions.server, "ten"), conditions.sizes.rows
    apart, together = list[float](), list[float]()
    for _ in range(conditions.sizes.rounds):
        apart.append(relayed(url, broker, Rows(rows, per_key=10)).rate)
        together.append(relayed(url, broker, Rows(rows, per_key=10, together=True)).rate)
    print(f"  {statistics.median(apart):,.0f} /s far apart, "
          f"{statistics.median(together):,.0f} /s ten in a row")  # fmt: skip
    return [median_ratio(together, apart)]


def _ten_kafka(conditions: Conditions) -> list[float]:
    return _ten(_kafka(conditions), conditions)


def _ten_nats(conditions: Conditions) -> list[float]:
    return _ten(_nats(conditions), conditions)


def _bare_kafka(conditions: Conditions) -> list[float]:
    """A row of a bare read and delete and of a bare confluent loop, over one of the relay."""
    broker, sizes = _kafka(conditions), conditions.sizes
    url, rows = new_database(conditions.server, "kafka"), Rows(sizes.drained)
    bare, ours = list[float](), list[float]()
    for _ in range(sizes.rounds):
        fill(url, rows)
        drained = asyncio.run(drain_by_loop(url)).rate
        produced = bare_kafka(conditions.kafka.bootstrap, _TOPIC, rows.number)
        bare.append(1 / (1 / drained + 1 / produced))
        ours.append(relayed(url, broker, rows).rate)
    return [median_ratio(ours, bare)]


def _rabbitmq(conditions: Conditions) -> list[float]:
    """The relay over a bare loop of aio-pika, and one subject, which goes one at a time."""
    try:
        broker = conditions.rabbitmq
    except MissingRabbitMq as error:
        raise NotMeasuredError(str(error)) from error
    url, rows = new_database(conditions.server, "rabbitmq"), conditions.sizes.rows // _SLOW
    bare, apart, hot = list[float](), list[float](), list[float]()
    for _ in range(conditions.sizes.rounds):
        bare.append(bare_rabbitmq(broker.host, broker.name, rows))
        apart.append(relayed(url, broker.url, Rows(rows)).rate)
        few = rows // _SLOW
        hot.append(relayed(url, broker.url, Rows(few, per_key=few)).rate)
        _check_stored(broker, 2 * rows + few)
    print(f"  rabbitmq: {statistics.median(bare):,.0f} /s by aio-pika, "
          f"{statistics.median(apart):,.0f} /s by the relay")  # fmt: skip
    return [median_ratio(apart, bare), statistics.median(hot)]


def _check_stored(broker: RabbitMqBroker, number: int) -> None:
    """Empty the queue. Raises `RuntimeError` unless it held so many messages, each once."""
    found = asyncio.run(broker.drained())
    if len(found) != number or len({stored.event_id for stored in found}) != number:
        raise RuntimeError(f"RabbitMQ has {len(found):,} messages instead of {number:,}")


RUNS = [
    Line(
        "writer-hot",
        [Goal("hot subject, 2 ms to the broker, over a coalescing writer of that entity", 1)],
        group_commit.relayed,
    ),
    Line(
        "kafka-hot",
        [
            Goal("hot subject, Kafka: with runs over one at a time", 10),
            Goal("the same: CPU per message", 200, most=True, unit=" us"),
        ],
        _hot_kafka,
    ),
    Line(
        "kafka-ten",
        [Goal("Kafka, ten in a row over far apart", 0.9)],
        _ten_kafka,
    ),
    Line(
        "kafka",
        [Goal("Kafka / bare read and delete, and bare confluent loop", 0.4)],
        _bare_kafka,
    ),
    Line(
        "nats-hot",
        [
            Goal("hot subject, NATS with atomic batches: over one at a time", 10),
            Goal("the same, 2 ms away each way", 10),
        ],
        _hot_nats,
    ),
    Line(
        "rabbitmq",
        [
            Goal("RabbitMQ over a bare aio-pika loop with confirms", 0.6),
            Goal("RabbitMQ, one subject", 100, unit=" /s"),
        ],
        _rabbitmq,
    ),
    Line("nats-ten", [Goal("NATS, ten in a row over far apart", 0.9)], _ten_nats),
    *select("relay:drain,failed", {"relay": RELAY}),
    *select("writer:many,large", {"writer": WRITER}),
]
