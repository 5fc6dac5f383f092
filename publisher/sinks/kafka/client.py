"""One producer of librdkafka, served from the event loop."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final

import anyio
from anyio import CapacityLimiter, to_thread
from confluent_kafka import KafkaError, KafkaException, Producer

from dsql_outbox.outbox import SettingsError, SinkUnavailable

from .callbacks import Callbacks
from .url import KafkaSettings

logger = logging.getLogger("dsql_outbox")

_SLICE: Final = 0.1
"""Seconds that one flush may take.

A flush of 0.2 s or more runs in parts, and goes on after a callback that
raised: the callbacks of the next part then run with that exception pending.
"""
_CLOSING: Final = 0.5  # seconds for the reports of the messages that are given up
_IDLE: Final = 1.0  # seconds between two looks at what librdkafka has to say without messages
_SECRETS: Final = ("password", "secret", "pem", "config")  # of librdkafka's settings


class KafkaClient:
    """Makes the producer, serves its callbacks, and replaces it when it is told to.

    After a failure of the broker the next producer is a new one: one that has
    lost the broker's trust, as by a number out of order, may never get it back.

    Callbacks of librdkafka run inside `flush`, in a worker thread: one flush at
    a time serves all that was produced, however many batches that is.
    `on_fatal` is called from the event loop, with the reason, when the producer
    has stopped for good.
    """

    def __init__(self, settings: KafkaSettings, on_fatal: Callable[[str], None]) -> None:
        self.callbacks = Callbacks()
        """What a callback of the producer has to call."""
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
            with suppress(KafkaException):  # a fatal error
                producer.poll(0)  # what went wrong comes by the error callback
            self.callbacks.run()
            raise self.unavailable("no broker answers") from error
        return producer

    def _make(self) -> Producer:
        self.callbacks.attach()
        callbacks = {"error_cb": partial(self.callbacks.soon, self._note), "logger": _Quiet()}
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
                    self.callbacks.run()  # a callback may have failed before it asked for it
                else:
                    self._produced.clear()
                    with anyio.move_on_after(_IDLE):
                        await self._produced.wait()
        except Exception as error:  # noqa: BLE001 - see _fatal
            reason = _fatal(error)
            logger.warning("%s: the producer has stopped: %s", self._settings, reason)
            self.replace(producer)
            self.callbacks.run()
            self._on_fatal(reason)
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
    found = error.args[0] if isinstance(error, KafkaException) else error
    return found.str() if isinstance(found, KafkaError) else str(found)


def _give_up(producer: Producer) -> None:
    end = monotonic() + _CLOSING
    with suppress(KafkaException):
        producer.purge()
    while len(producer) and monotonic() < end:
        with suppress(Exception):  # of a producer that has stopped for good
            producer.flush(_SLICE)


class _Quiet:
    """Takes what librdkafka logs, by default to standard error; its error callback tells it too."""

    def log(self, *_: object) -> None:
        """Drop it. Not a logger of Python's, which takes a lock: see `Callbacks`."""
