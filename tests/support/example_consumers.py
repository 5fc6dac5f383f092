"""The consumers of examples/rabbitmq and examples/kafka, also in processes with failing handlers.

    python -m tests.support.example_consumers FOLDER [QUEUE..|TOPIC SESSION]

Every seventh call of their handler fails before its effect, and every eleventh one after it.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from types import ModuleType
from typing import Any, Final

import psycopg
from tests.support.checkout import ROOT
from tests.support.waiting import wait_until

from dsql_outbox import Database, Message
from dsql_outbox.testing.sink_contract import new_message

SUBJECTS: Final = 12
MOVES: Final = 20
ALL: Final = SUBJECTS * MOVES

_TABLE: Final = """
CREATE TABLE public.billed (
    number bigint GENERATED ALWAYS AS IDENTITY,
    subject text,
    sequence int
)
"""


def moves(first: int = 1, last: int = MOVES, topic: str = "events.CarMoved") -> list[Message]:
    """These messages of each subject, in order."""
    return [
        new_message(
            f"Car/{n}",
            topic=topic,
            sequence=str(number),
            position=str(number),
            previousposition=str(number - 1),
        )
        for number in range(first, last + 1)
        for n in range(SUBJECTS)
    ]


def new_consumer(folder: str) -> ModuleType:
    """The module of an example, executed anew. It does not wait for long."""
    consumer = ModuleType("consumer")
    source = (ROOT / "examples" / folder / "consumer.py").read_text(encoding="utf-8")
    exec(compile(source, "consumer.py", "exec"), vars(consumer))
    vars(consumer)["WAIT"] = 0.02
    return consumer


def new_kafka_consumer(topic: str, session: str) -> ModuleType:
    """That of Kafka, for a topic and a group of this name.

    A process that was killed is missed after `session` milliseconds. The mock cluster lets each
    rebalance take a second less.
    """
    consumer = new_consumer("kafka")
    vars(consumer)["TOPICS"] = [topic]
    # A fetch that waits for messages holds up the one after a seek.
    consumer.SETTINGS.update({"group.id": topic, "fetch.wait.max.ms": 10})
    consumer.SETTINGS.update({"session.timeout.ms": session, "heartbeat.interval.ms": 200})
    return consumer


# --- what they leave in the database ---------------------------------------------------


class Billed:
    """The table of the handlers, which is empty."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        connection.execute("DROP TABLE IF EXISTS public.billed")
        connection.execute(_TABLE)

    def rows(self) -> list[tuple[str, int]]:
        """The subject and the number of each message, in the order of their effects."""
        query = "SELECT subject, sequence FROM public.billed ORDER BY number"
        return self._connection.execute(query).fetchall()

    def require_all_once_and_in_order(self) -> None:
        """Each move of each subject is there."""
        found = self.rows()
        for n in range(SUBJECTS):
            assert [move for each, move in found if each == f"Car/{n}"] == [*range(1, MOVES + 1)]
        assert len(found) == ALL


@contextmanager
def billed(url: str) -> Generator[Billed]:
    """The table, in this database."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield Billed(connection)


# --- in processes ----------------------------------------------------------------------


class Service:
    """Two processes of an example, which are started again when they end."""

    def __init__(self, folder: str, *words: str, env: Mapping[str, str]) -> None:
        self._words = [sys.executable, "-m", "tests.support.example_consumers", folder, *words]
        self._env = os.environ | env
        self._running = [self._start() for _ in range(2)]

    def harm(self, number: int) -> int:
        """End the process that has run for longer by a signal, and start one; return the code."""
        process = self._running[0]
        process.send_signal(number)
        code = process.wait(30)
        self.restarted()
        return code

    def restarted(self) -> bool:
        """Start a process for each that has ended; return whether there was one."""
        ended = [process for process in self._running if process.poll() is not None]
        for process in ended:
            self._running.remove(process)
            self._running.append(self._start())
        return bool(ended)

    def end(self) -> list[int]:
        """Press Ctrl-C, which ends each process at any time; return the codes."""
        for process in self._running:
            process.send_signal(signal.SIGINT)
        return [process.wait(30) for process in self._running]

    def _start(self) -> subprocess.Popen[str]:
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        process = subprocess.Popen(self._words, cwd=ROOT, env=self._env, **pipes)
        assert process.stdout is not None
        process.stdout.readline()  # the example's `main` runs
        process.stdout.close()
        return process


def handle_all(service: Service, table: Billed, harm: int | None) -> None:
    """Wait until all messages are handled, while processes are harmed."""

    def until_handled(number: int) -> None:
        wait_until(lambda: not service.restarted() and len(table.rows()) >= number, 60)

    try:
        for part in range(1, 4):
            until_handled(part * ALL // 4)
            if harm is not None:
                assert service.harm(harm) == (-harm if harm == signal.SIGKILL else 0)
        until_handled(ALL)
    finally:
        codes = service.end()
    table.require_all_once_and_in_order()
    assert codes == [0, 0]


def _failing() -> Any:
    calls = count(1)

    @contextmanager
    def call() -> Generator[None]:
        number = next(calls)
        if number % 7 == 0:
            raise RuntimeError("the handler fails before its effect")
        yield
        if number % 11 == 0:
            raise RuntimeError("the handler fails after its effect")

    return call


def _announced(address: str) -> Database:
    sys.stdout.write("runs\n")
    sys.stdout.flush()
    return Database(address)


def _serve_kafka(topic: str, session: str) -> None:
    consumer, failing = new_kafka_consumer(topic, session), _failing()
    plain = consumer.handle

    def handle(*arguments: Any) -> None:
        with failing():
            plain(*arguments)

    vars(consumer).update(handle=handle, Database=_announced)
    consumer.main()


def _serve_rabbitmq(*queues: str) -> None:
    consumer, failing = new_consumer("rabbitmq"), _failing()
    plain = consumer.handle

    async def handle(*arguments: Any) -> None:
        with failing():
            await plain(*arguments)

    vars(consumer).update(handle=handle, Database=_announced)
    asyncio.run(consumer.main([int(queue) for queue in queues]))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        _, folder, *words = sys.argv
        _serve_kafka(*words) if folder == "kafka" else _serve_rabbitmq(*words)
