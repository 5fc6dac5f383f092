"""``make page``: measure what docs/performance.md says of these subjects, and print tables."""

import argparse
import asyncio
import logging
import signal
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from time import perf_counter, process_time
from uuid import uuid4

import psycopg
from benchmarks.goals.conditions import FULL, Conditions, Sizes
from benchmarks.measure import machine
from benchmarks.peers.contestants import APART, CONTESTANTS
from benchmarks.peers.way import HUNDRED, LONE, THOUSAND, Way, Ways
from benchmarks.relay.drain import Drained, drain_by_relay
from benchmarks.relay.rows import Rows, fill, new_database
from benchmarks.sample_event import event
from benchmarks.telemetry import Encoded, traced
from benchmarks.writer.statement_parameters import SHARDS, single
from benchmarks.writer.write_command import load
from opentelemetry.sdk.trace import TracerProvider
from tests.support.brokers.java_servers import MissingJava

from dsql_outbox.inbox import Inbox, Received
from dsql_outbox.inbox.received import received_message
from dsql_outbox.observability import Hook, TraceFacts
from dsql_outbox.outbox import Database
from dsql_outbox.outbox.event.event_parser import ParsedEvent, parse_event
from dsql_outbox.publisher import open_sink
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.writer import Writer
from dsql_outbox.writer.statement.parameters import one_parameters, prepare

_Row = Sequence[str]
_Table = tuple[_Row, Iterable[_Row]]

_BATCH = 500
"""Events of a transaction of the write command."""

_RETURN = ("--on-duplicate", "return")
_OPENINGS = 30
_WRITES = 500  # of a round


# --- what a message costs ------------------------------------------------------------------

_PROVIDERS = {
    "no provider": (False, False, ""),
    "metrics, read once a second": (True, False, ""),
    "metrics, and spans of a provider, but no write was sampled": (True, True, "00"),
    "metrics, every write sampled, spans not exported": (True, True, "01"),
    "the same, with the spans encoded for OTLP in a thread": (True, True, "01"),
}


def message(conditions: Conditions) -> _Table:
    """CPU per message of a drain, and messages per second, by provider and broker."""
    brokers = {"null sink": None, "NATS": f"{conditions.broker.url}?stream=EVENTS"}
    try:
        brokers["Kafka"] = f"kafka://{conditions.kafka.bootstrap}"
    except MissingJava as error:
        print(f"without Kafka: {error}", file=sys.stderr)
    url, sizes = new_database(conditions.server, "message"), conditions.sizes
    found: dict[tuple[str, str], list[Drained]] = {
        (name, broker): [] for name in _PROVIDERS for broker in brokers
    }
    for _ in range(sizes.rounds):
        for (name, broker), drains in found.items():
            metrics, spans, flags = _PROVIDERS[name]
            fill(url, rows := Rows(sizes.rows // 2, flags=flags))
            with ExitStack() as stack:
                hooks = [_spans(stack, encoded="encoded" in name)] if spans else []
                drained = asyncio.run(_relayed(url, brokers[broker], hooks, metrics=metrics))
                ended, busy = perf_counter(), process_time()
            # The spans that waited for the thread are encoded now.
            took, worked = perf_counter() - ended, process_time() - busy
            rate = 1 / (1 / drained.rate + took / rows.number)
            drains.append(Drained(rate, drained.cpu + worked / rows.number * 1e6))
    return ("", *brokers), [
        (name, *(_cost(found[name, broker]) for broker in brokers)) for name in _PROVIDERS
    ]


def _spans(stack: ExitStack, *, encoded: bool) -> TraceFacts:
    if encoded:
        _, hook = stack.enter_context(traced(Encoded()))
        return hook
    return TraceFacts(TracerProvider(shutdown_on_exit=False))


async def _relayed(
    url: str, broker: str | None, hooks: Sequence[Hook], *, metrics: bool
) -> Drained:
    if broker is None:
        return await drain_by_relay(url, metrics=metrics, hooks=hooks)
    async with open_sink(broker) as sink:
        return await drain_by_relay(url, sink, metrics=metrics, hooks=hooks)


def _cost(drains: Sequence[Drained]) -> str:
    cpu = statistics.median(each.cpu for each in drains)
    rate = statistics.median(each.rate for each in drains)
    return f"{cpu:.0f} us; {rate:,.0f}/s"


# --- a lone write, by part -----------------------------------------------------------------


def write(conditions: Conditions) -> _Table:
    """The time of a lone write of a `Writer` on a warm connection, by part, in us."""
    url, number = new_database(conditions.server, "write"), conditions.sizes.rounds * _WRITES
    database, one = Database(url), statement("event_write_one", "outbox")
    # A connection for each part, so that no part finds the caches of its server warm.
    with Writer(database) as writer, _bare(url) as empty, _bare(url) as bare, _bare(url) as lazy:
        lazy.execute("SET synchronous_commit = off")
        taken: dict[str, list[float]] = defaultdict(list)
        for turn in range(number):
            ours, theirs, late = (event(f"CAR-{turn}-{n}", n) for n in range(3))
            parsed, statements = parse_event(ours), [single(theirs), single(late)]
            parts: dict[str, Callable[[], object]] = {
                "whole": partial(writer.write, ours),
                "parse": partial(parse_event, ours),
                "build": partial(_parameters, parsed),
                "empty": partial(empty.execute, "SELECT", prepare=True),
                "bare": partial(bare.execute, one, statements[0], prepare=True),
                "lazy": partial(lazy.execute, one, statements[1], prepare=True),
            }
            for part, act in parts.items():
                taken[part].append(_seconds(act))
    us = {part: statistics.median(seconds) * 1e6 for part, seconds in taken.items()}
    opened, first = _openings(database)
    found = {
        "read and check the event": us["parse"],
        "build the parameters": us["build"],
        "driver, and a round trip without work": us["empty"],
        "the statement, in the server": us["lazy"] - us["empty"],
        "its commit: the flush of the WAL": us["bare"] - us["lazy"],
        "deadline, attempt, facts and receipt": us["whole"]
        - us["parse"]
        - us["build"]
        - us["bare"],
        "**a write**": us["whole"],
        "once per connection: to open it": opened,
        "once per writer: the rest of its first write": first - opened - us["whole"],
    }
    return ("part", "us"), [(part, f"{each:,.0f}") for part, each in found.items()]


def _bare(url: str) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True)


def _parameters(parsed: ParsedEvent) -> object:
    prepared = prepare(parsed, uuid4().hex, "events.CarMoved", "/dsql-outbox", {})
    return one_parameters(prepared, SHARDS)


def _openings(database: Database) -> tuple[float, float]:
    """The time of an opened connection, and of the first write of a writer, in us."""
    opened, first = list[float](), list[float]()
    for n in range(_OPENINGS):
        opened.append(_seconds(lambda: database.connect().close()))
        with Writer(database) as writer:
            first.append(_seconds(partial(writer.write, event(f"FIRST-{n}", n))))
    return statistics.median(opened) * 1e6, statistics.median(first) * 1e6


def _seconds(act: Callable[[], object]) -> float:
    began = perf_counter()
    act()
    return perf_counter() - began


# --- steady traffic ------------------------------------------------------------------------

_SHARE = 0.3  # of the traffic's seconds; `--full` takes all


def steady(conditions: Conditions) -> _Table:
    """Events that one process writes and another one relays, of each library that can."""
    share = 1.0 if conditions.sizes == FULL else _SHARE
    with Ways(conditions.server, [each for each in CONTESTANTS if each.name in APART]) as ways:
        for name, why in ways.missing.items():
            print(f"without {name}: {why}", file=sys.stderr)
        lone, *others = (list(ways.measure(each, share)) for each in (LONE, HUNDRED, THOUSAND))
    seconds = max(1, round(THOUSAND.seconds * share))
    return (
        "",
        "lone",
        "100 events/s",
        "1,000 events/s, if the writer can",
        "it wrote, events/s",
    ), [
        (one.contestant, _times(one), *map(_spent, many), f"{many[-1].written / seconds:,.0f}")
        for one, *many in zip(lone, *others, strict=True)
    ]


def _times(way: Way) -> str:
    return f"{way.relayed.p50:,.3g} / {way.relayed.p99:,.3g}"


def _spent(way: Way) -> str:
    if way.relayed.events < way.written:
        return "falls behind"
    return f"{_times(way)}; {way.cost.process:,.0f} + {way.cost.server:,.0f}"


# --- loading many events -------------------------------------------------------------------


def loading(conditions: Conditions) -> _Table:
    """``dsql-outbox write``, with ten events per subject."""
    number = conditions.sizes.load
    url = new_database(conditions.server, "loading")
    runs = {f"{number:,}, all new": (), "the same again, `--on-duplicate return`": _RETURN}
    return ("input", "time", "events/s", "peak RSS"), [
        (name, *_loaded(url, number, options)) for name, options in runs.items()
    ]


def _loaded(url: str, number: int, options: Sequence[str]) -> _Row:
    seconds, memory, code, receipts = load(url, number, *options)
    if (code, receipts) != (0, number):
        raise RuntimeError(f"write ended with {code} after {receipts:,} receipts")
    return f"{seconds:.1f} s", f"{number / seconds:,.0f}", f"{memory.peak:.0f} MiB"


# --- what the inbox costs a consumer -------------------------------------------------------

_MESSAGES = 500
_EFFECT = b"INSERT INTO effects VALUES (%s)"


def consumer(conditions: Conditions) -> _Table:
    """Messages per second of a handler with one INSERT, over loops that remember nothing."""
    url = new_database(conditions.server, "consumer")
    with (
        Inbox(Database(url), "page") as inbox,
        psycopg.connect(url) as connection,
    ):
        connection.execute("CREATE TABLE effects (message text)")
        connection.commit()
        ways: dict[str, Callable[[Sequence[Received]], object]] = {
            "no inbox, a COMMIT each": partial(_each, connection, None),
            "`once`": lambda each: [inbox.once(one, partial(_handle, one)) for one in each],
            "`remember` in your transaction": partial(_each, connection, inbox),
            "no inbox, one COMMIT": partial(_all, connection),
            "`once_many`": lambda each: inbox.once_many(each, _effect),
        }
        rates: dict[str, list[float]] = defaultdict(list)
        for round_number in range(conditions.sizes.rounds + 1):
            for name, way in ways.items():
                messages = [received(n) for n in range(_MESSAGES)]
                rates[name].append(_MESSAGES / _seconds(partial(way, messages)))
                if not round_number:
                    rates[name].clear()  # connections are opened, and statements prepared
    rows: list[_Row] = []
    for name in ways:
        bare = rates["no inbox, one COMMIT" if "many" in name else "no inbox, a COMMIT each"]
        shares = [100 * ours / theirs for ours, theirs in zip(rates[name], bare, strict=True)]
        share = "" if name.startswith("no") else f"{statistics.median(shares):.0f} %"
        spread = "" if name.startswith("no") else f"{min(shares):.0f} to {max(shares):.0f} %"
        rows.append([name, f"{statistics.median(rates[name]):,.0f}", share, spread])
    return ["500 waiting messages", "messages/s", "of the same without", "rounds"], rows


def received(number: int) -> Received:
    """Return a new message of one of fifty subjects."""
    headers = {
        "id": str(uuid4()),
        "source": "/page",
        "subject": f"Loan/{number % 50}",
        "position": str(number + 1),
        "previousposition": str(max(0, number - 49)),
    }
    return received_message(headers, dedupe_id=headers["id"], topic="loans", data=b"{}")


def _each(
    connection: psycopg.Connection, inbox: Inbox | None, messages: Sequence[Received]
) -> None:
    for message in messages:
        if inbox is None or inbox.remember(connection, message) is not None:
            _effect(connection, message)
        connection.commit()


def _all(connection: psycopg.Connection, messages: Sequence[Received]) -> None:
    for message in messages:
        _effect(connection, message)
    connection.commit()


def _effect(connection: psycopg.Connection, message: Received) -> None:
    connection.execute(_EFFECT, (message.subject_id,))


def _handle(message: Received, connection: psycopg.Connection) -> None:
    _effect(connection, message)


TABLES = {
    "message": message,
    "write": write,
    "steady": steady,
    "loading": loading,
    "consumer": consumer,
}


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.page", description=__doc__)
    parser.add_argument("--only", default=",".join(TABLES), help="default: %(default)s")
    parser.add_argument("--full", action="store_true", help="more rows, rounds and events")
    given = parser.parse_args()
    logging.getLogger("dsql_outbox").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM stops the servers
    with Conditions(FULL if given.full else Sizes()) as conditions:
        for name in given.only.split(","):
            print(f"\n{name}: {machine()}\n")
            head, rows = TABLES[name](conditions)
            for row in (head, ["---"] * len(head), *rows):
                print("|", " | ".join(row), "|", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
