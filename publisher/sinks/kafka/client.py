"""The librdkafka producer of a sink: created, served, and replaced after a failure."""

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
"""The longest flush, in seconds.

A flush of 0.2 s or more runs in parts, and goes on after a callback raised. The
callbacks of the next part then run with that exception pending (see `Callbacks`).
"""
_CLOSING: Final = 0.5  # seconds to wait for the reports of messages that are given up
_IDLE: Final = 1.0  # seconds between two looks for errors while there are no messages
_SECRETS: Final = ("password", "secret", "pem", "config")  # parts of names of librdkafka's settings


class KafkaClient:
    """Creates the producer, serves its callbacks, and replaces it on request.

    After a failure of the broker a new producer is created. An idempotent producer
    that the broker refuses once, for example because of a sequence number out of
    order, may stay refused.

    The callbacks of librdkafka run inside `flush`, in a worker thread. One flush at a
    time serves the messages of all batches. `on_fatal` is called from the event loop,
    with the reason, when the producer has stopped for good.
    """

    def __init__(self, settings: KafkaSettings, on_fatal: Callable[[str], None]) -> None:
        self.callbacks = Callbacks()
        """The queue to which the producer's callbacks must add their calls."""
        self._settings = settings
        self._on_fatal = on_fatal
        self._producer: Producer | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._produced = asyncio.Event()
        self._opening = asyncio.Lock()
        self._last_error: KafkaError | None = None

    async def ready(self) -> Producer:
        """The producer; creates one at the first call and after `replace`.

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
        """Send the produced messages now; the answers arrive in the background."""
        self._produced.set()

    def replace(self, producer: Producer) -> None:
        """Let the next `ready` create a new producer; this one ends after its last message."""
        if self._producer is producer:
            self._producer = None
            self._produced.set()

    def answered(self) -> None:
        """Note that every message of a batch was answered, and clear the last error."""
        if self._last_error is not None:
            logger.info("%s: the broker answers again", self._settings)
            self._last_error = None

    def unavailable(self, reason: str) -> SinkUnavailable:
        """The error for a broker out of reach: the brokers, the reason, librdkafka's last error."""
        said = f" ({self._last_error.str()})" if self._last_error else ""
        return SinkUnavailable(f"{self._settings}: {reason}{said}")

    async def close(self) -> None:
        """Give up undelivered messages and disconnect; takes about a second at most."""
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
                producer.poll(0)  # runs the error callback, which knows the reason
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
                    self.callbacks.run()  # a callback may have failed before it could schedule this
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
        # While a connection is opened, the exception of `_open` reports the error.
        level = logging.WARNING if is_news and self._producer is not None else logging.DEBUG
        logger.log(level, "%s: %s", self._settings, error.str())
        # "All brokers are down" says less than the error of the last broker.
        if is_news or error.name() != "_ALL_BROKERS_DOWN":
            self._last_error = error

    def _without_secrets(self, text: str) -> str:
        for name, value in self._settings.properties.items():
            if value and any(secret in name for secret in _SECRETS):
                text = text.replace(value, "***")
        return text


def _fatal(error: BaseException) -> str:
    """The reason why the producer stopped: the error itself, or the root of a failed callback."""
    while error.__cause__ and not isinstance(error, KafkaException):
        error = error.__cause__
    found = error.args[0] if isinstance(error, KafkaException) else error
    return found.str() if isinstance(found, KafkaError) else str(found)


def _give_up(producer: Producer) -> None:
    end = monotonic() + _CLOSING
    with suppress(KafkaException):
        producer.purge()
    while len(producer) and monotonic() < end:
        with suppress(Exception):  # a producer that has stopped for good raises here
            producer.flush(_SLICE)


class _Quiet:
    """Drops the log lines of librdkafka, which go to standard error by default.

    The error callback receives the same errors.
    """

    def log(self, *_: object) -> None:
        """Drop a line. A Python logger must not be used here: it takes a lock (see `Callbacks`)."""
