"""A sink that hands each message to Celery's own producer, with the confirms of RabbitMQ.

The payload names the task: ``{"task": "shop.bill", "args": [..], "kwargs": {..}}``. The task's id
is the dedupe id of the message, which stays the same in every try.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import msgspec
from amqp.exceptions import AMQPError, ChannelError, MessageNacked
from anyio import CapacityLimiter, to_thread
from celery import Celery
from kombu.exceptions import KombuError, OperationalError

from dsql_outbox import Message, SinkUnavailable
from dsql_outbox.outbox.message import TRACE_HEADERS
from dsql_outbox.publisher import Answer, Delivered, Outcome, Rejected, Retry, Unavailable


class Task(msgspec.Struct):
    """What a payload says."""

    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class CelerySink:
    """Sends tasks over one connection; a message is delivered when its task was confirmed."""

    system = "celery"

    def __init__(self, app: Celery, timeout: float) -> None:
        self._app = app
        self._timeout = timeout
        self._producer: Any = None
        self._one_at_a_time = CapacityLimiter(1)  # the client blocks, and takes one thread

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Send tasks, within the timeout; without messages, ask for the broker."""
        outcomes, failure = await to_thread.run_sync(
            self._send_all, messages, limiter=self._one_at_a_time
        )
        for index, outcome in enumerate(outcomes):
            answer(index, outcome)
        if failure is not None and Delivered() not in outcomes:
            raise SinkUnavailable(f"Celery's broker cannot be used: {failure}") from failure

    async def close(self) -> None:
        """Close the connection."""
        await to_thread.run_sync(self._close, limiter=self._one_at_a_time)

    def _send_all(self, messages: Sequence[Message]) -> tuple[list[Outcome], Exception | None]:
        deadline = monotonic() + self._timeout
        outcomes: list[Outcome] = []
        try:
            self._open()
            for message in messages:
                if (left := deadline - monotonic()) <= 0:
                    break
                outcomes.append(self._send(message, left))
        except (AMQPError, KombuError, OSError) as error:
            self._close()
            return outcomes, error
        return outcomes, None

    def _send(self, message: Message, timeout: float) -> Outcome:
        try:
            asked = msgspec.json.decode(message.payload, type=Task)
        except msgspec.DecodeError as error:
            return Rejected(f"no task: {error}")
        trace = {name: message.headers[name] for name in TRACE_HEADERS if name in message.headers}
        try:
            self._app.send_task(
                asked.task,
                asked.args,
                asked.kwargs,
                task_id=message.dedupe_id,
                headers=trace,
                producer=self._open(),
                retry=False,  # the relay retries
                mandatory=True,  # a task for which there is no queue is refused, and not dropped
                timeout=timeout,
                confirm_timeout=timeout,
            )
        except OperationalError as error:  # whatever Celery's client has raised
            if isinstance(error.__cause__, MessageNacked):
                return Retry("the queue refused the task")
            raise
        except ChannelError as error:  # no route, no exchange, another queue of this name
            self._close()  # the confirm of this task must not answer for the next one
            return Unavailable(f"refused by the broker: {error}")
        return Delivered()

    def _open(self) -> Any:
        if self._producer is None:
            connection = self._app.connection_for_write(
                connect_timeout=self._timeout,
                heartbeat=0,  # nobody sends one while there is no message
                transport_options={"confirm_publish": True},
            )
            connection.ensure_connection(max_retries=1, interval_start=0)
            self._producer = self._app.amqp.Producer(connection)
        return self._producer

    def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.connection.collect(self._timeout)


@asynccontextmanager
async def open_celery(app: Celery, timeout: float = 5.0) -> AsyncGenerator[CelerySink]:
    """Open the sink for the broker of an app."""
    sink = CelerySink(app, timeout)
    try:
        await sink.publish([], lambda *_: None)
        yield sink
    finally:
        await sink.close()
