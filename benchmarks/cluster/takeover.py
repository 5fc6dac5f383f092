"""Two publishers, of which the first is killed: its shards move, and the order holds."""

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Final

import msgspec

from dsql_outbox.cli.doctor.examined_database import run
from dsql_outbox.cli.doctor.finding import Finding
from dsql_outbox.outbox import Database, Entity, Event, OutboxError, Receipt
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.writer import Writer, WriterSettings

_NAME: Final = "take-over"
_LEASE: Final = 3.0  # seconds
_SUBJECTS: Final = 16
_PATIENCE: Final = 60.0
"""Seconds that each state may take to be reached."""

_POLL: Final = 0.1  # seconds between two rounds of events


class SentMessage(msgspec.Struct):
    """A message as the sink ``jsonl:`` writes it."""

    key: str
    headers: dict[str, str]


def take_over(database: Database, address: str) -> Finding:
    """Whether a publisher takes over from one that is killed, loses nothing and keeps the order."""
    with (
        TemporaryDirectory(prefix="outbox-doctor-") as folder,
        database.connect() as connection,
        Writer(database, WriterSettings(backlog_check=None)) as writer,
    ):
        load = _Load(writer, connection, database.schema)
        first, second = Path(folder, "first.jsonl"), Path(folder, "second.jsonl")
        seconds = _kill_the_first(load, database.schema, address, first, second)
        return judge_takeover(load.stored, [*_lines(first), *_lines(second)], seconds)


def _kill_the_first(load: "_Load", schema: str, address: str, first: Path, second: Path) -> float:
    """Return the seconds from the kill until the second publisher owns all shards."""
    with _publisher(schema, address, first) as doomed:
        load.wait("one publisher owns all shards", lambda: load.is_shared_by(1))
        (owner,) = load.owners()
        with _publisher(schema, address, second):
            load.wait("two publishers share the shards", lambda: load.is_shared_by(2))
            load.write_until("the first delivers", lambda: first.stat().st_size > 0)
            doomed.kill()
            killed = monotonic()
            load.write_until("the second owns all shards", lambda: load.is_moved_from(owner))
            seconds = monotonic() - killed
            load.wait("all messages are delivered", load.is_delivered)
            return seconds


class _Load:
    """Writes events in rounds, one per subject, and looks at the shards meanwhile."""

    def __init__(self, writer: Writer, connection: Connection, schema: str) -> None:
        self._writer = writer
        self._connection = connection
        self._schema = schema
        self._rounds = count()
        self.stored: list[Receipt] = []

    def owners(self) -> set[str | None]:
        """The publishers that own shards; None among them if a shard has no owner."""
        return {owner for _, owner, *_ in run(self._connection, self._schema, "status_shards")}

    def is_shared_by(self, publishers: int) -> bool:
        """Whether so many publishers own all shards between them."""
        owners = self.owners()
        return None not in owners and len(owners) == publishers

    def is_moved_from(self, owner: str | None) -> bool:
        """Whether other publishers own all shards."""
        return self.owners().isdisjoint({owner, None})

    def is_delivered(self) -> bool:
        """Whether no message waits."""
        rows = run(self._connection, self._schema, "status_shards")
        return all(position is None for *_, position in rows)

    def write_until(self, state: str, reached: Callable[[], bool]) -> None:
        """Write rounds of events until a state is reached. Raises as `wait` does."""

        def written() -> bool:
            self._write()
            return reached()

        self.wait(state, written)

    def wait(self, state: str, reached: Callable[[], bool]) -> None:
        """Wait until a state is reached. Raises `OutboxError` after `_PATIENCE` seconds."""
        deadline = monotonic() + _PATIENCE
        while not reached():
            if monotonic() > deadline:
                raise OutboxError(f"not reached within {_PATIENCE:.0f} s: {state}")
            sleep(_POLL)

    def _write(self) -> None:
        turn = next(self._rounds)
        cars = [Entity("Car", f"MOVED-{n}", {"turn": turn}) for n in range(_SUBJECTS)]
        events = [Event.new("CarMoved", [car]) for car in cars]
        for result in self._writer.write_many(events):
            if isinstance(result, Exception):
                raise result
            self.stored.append(result)


@contextmanager
def _publisher(schema: str, address: str, file: Path) -> Generator[subprocess.Popen[bytes]]:
    """Run ``dsql-outbox publish`` as its own process; it is killed after the block."""
    command = [sys.executable, "-m", "dsql_outbox", "publish", "--sink", f"jsonl:{file}"]
    # In the environment, because every user of this machine can read a command line.
    login = {"DSQL_OUTBOX_DATABASE": address, "DSQL_OUTBOX_SCHEMA": schema}
    process = subprocess.Popen(
        [*command, "--lease", str(_LEASE)],
        env=os.environ | login,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _lines(file: Path) -> list[SentMessage]:
    """The messages in a file; a kill may have cut the last line."""
    whole = file.read_bytes().rpartition(b"\n")[0]
    return [msgspec.json.decode(line, type=SentMessage) for line in whole.splitlines()]


def judge_takeover(
    stored: Sequence[Receipt], lines: Sequence[SentMessage], seconds: float
) -> Finding:
    """Judge by the stored events, and by the lines of the first and then of the second publisher.

    `seconds` is how long the shards of the first one had no owner that lived.
    """
    versions: defaultdict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for line in lines:
        if line.headers["ce-id"] not in seen:
            versions[line.key].append(int(line.headers["ce-sequence"]))
            seen.add(line.headers["ce-id"])
    lost = len({str(receipt.event_id) for receipt in stored} - seen)
    disorder = sum(
        later < before for found in versions.values() for before, later in pairwise(found)
    )
    again = len(lines) - len(seen)
    values = {
        "stored": len(stored),
        "lost": lost,
        "out_of_order": disorder,
        "again": again,
        "seconds": seconds,
        "lease": _LEASE,
    }
    text = (
        f"shards moved {seconds:.1f} s after the kill, leases of {_LEASE:.0f} s; {len(stored)} "
        f"events, {lost} lost, {disorder} out of order, {again} sent again"
    )
    if not (lost or disorder):
        return Finding(_NAME, "ok", text, values=values)
    return Finding(
        _NAME, "fail", text, "do not publish from here: order or events are lost", values=values
    )
