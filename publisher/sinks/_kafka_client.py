"""One producer of librdkafka, served from the event loop."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
from anyio import CapacityLimiter, to_thread
from confluent_kafka import KafkaError, KafkaException, Producer

from dsql_outbox.outbox import SettingsError, SinkUnavailable

from ._kafka_url import KafkaSettings

logger = logging.getLogger("dsql_outbox")

_SLICE: Final = 0.5  # seconds that one flush may take: what closing may have to wait for
_IDLE: Final = 1.0  # seconds between two looks at what librdkafka has to say without messages
_SECRETS: Final = ("password", "secret", "pem", "config")  # of librdkafka's settings


class KafkaClient:
    """Makes the producer, serves its callbacks, and replaces it when it is told to.

    After a failure of the broker the next producer is a new one: one that has
    lost the broker's trust, as by a number out of order, may never get it back.

    Callbacks of librdkafka run inside `flush`, in a worker thread: one flush at
    a time serves all that was produced, however many batches that is.
    `on_fatal` is called from the event loop when the producer has stopped for good.
    """

    def __init__(self, settings: KafkaSettings, on_fatal: Callable[[], None]) -> None:
        self._settings = settings
        self._on_fatal = on_fatal
        self._producer: Producer | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._produced = asyncio.Event()
        self._opening = asyncio.Lock()
        self._last_error: KafkaError | None = None

    async def ready(self) -> Producer:
        """The producer; makes one at the first call and when the last is to be replaced.

        Raises `SettingsError` for a setting that librdkafka refuses, and
        `SinkUnavailable` when no broker answers within the timeout.
        """
        async with self._opening:
            if self._producer is None:
                self._producer = await self._open()
                task = asyncio.create_task(self._serve(self._producer))
                self._serving.add(task)
                task.add_done_callback(self._serving.discard)
        return self._producer

    def flush_soon(self) -> None:
        """Send what was produced, and wait for the answers in the background."""
        self._produced.set()

    def replace(self, producer: Producer) -> None:
        """Make a new producer at the next call of `ready`; this one ends with its messages."""
        if self._producer is producer:
            self._producer = None
            self._produced.set()

    def answered(self) -> None:
        """Every message of a batch had its answer: forget what was wrong before."""
        if self._last_error is not None:
            logger.info("%s: all is well again", self._settings)
            self._last_error = None

    def unavailable(self, reason: str) -> SinkUnavailable:
        """The error that names the brokers, with what librdkafka last said of them."""
        said = f" ({self._last_error.str()})" if self._last_error else ""
        return SinkUnavailable(f"{self._settings}: {reason}{said}")

    async def close(self) -> None:
        """Give up what is not delivered, and disconnect; takes about a second at most."""
        self._producer = None
        for task in self._serving:
            task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*self._serving, return_exceptions=True)

    async def _open(self) -> Producer:
        self._last_error = None
        producer = self._make()
        try:
            await to_thread.run_sync(partial(producer.list_topics, timeout=self._settings.timeout))
        except KafkaException as error:
            producer.poll(0)  # what went wrong comes by the error callback
            raise self.unavailable("no broker answers") from error
        return producer

    def _make(self) -> Producer:
        callbacks = {"error_cb": self._note, "logger": _QUIET}
        try:
            return Producer({**self._settings.properties, **callbacks})
        except KafkaException as error:
            text = self._without_secrets(error.args[0].str())
            raise SettingsError(f"librdkafka refuses a setting: {text}") from None

    async def _serve(self, producer: Producer) -> None:
        one_at_a_time = CapacityLimiter(1)
        try:
            while self._producer is producer or len(producer):
                if len(producer):
                    await to_thread.run_sync(producer.flush, _SLICE, limiter=one_at_a_time)
                else:
                    self._produced.clear()
                    with anyio.move_on_after(_IDLE):
                        await self._produced.wait()
        except Exception as error:  # noqa: BLE001 - see _fatal
            logger.warning("%s: the producer has stopped: %s", self._settings, _fatal(error))
            self.replace(producer)
            self._on_fatal()
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(_give_up, producer)

    def _note(self, error: KafkaError) -> None:
        is_news = self._last_error is None
        # While a connection is opened, the error that is raised tells it.
        level = logging.WARNING if is_news and self._producer is not None else logging.DEBUG
        logger.log(level, "%s: %s", self._settings, error.str())
        # "All brokers are down" says less than why the last one is.
        if is_news or error.name() != "_ALL_BROKERS_DOWN":
            self._last_error = error

    def _without_secrets(self, text: str) -> str:
        for name, value in self._settings.properties.items():
            if value and any(secret in name for secret in _SECRETS):
                text = text.replace(value, "***")
        return text


def _fatal(error: BaseException) -> str:
    """What stopped the producer: as such, or as the cause of what it did to a callback."""
    while error.__cause__ and not isinstance(error, KafkaException):
        error = error.__cause__
    return str(error)


def _give_up(producer: Producer) -> None:
    with suppress(Exception):  # a producer that has stopped for good raises, and is gone anyway
        producer.purge()
        producer.flush(_SLICE)


# What librdkafka logs, its error callback tells as well; by default it writes to standard error.
_QUIET: Final = logging.getLogger("dsql_outbox.librdkafka")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False
