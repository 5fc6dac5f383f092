"""The librdkafka producer of a sink: created, served, and replaced after a failure."""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final

import anyio
from anyio import CapacityLimiter, to_thread
from confluent_kafka import KafkaError, KafkaException, Producer

from dsql_outbox.outbox.errors import SettingsError, SinkUnavailable
from dsql_outbox.outbox.redaction import system_error
from dsql_outbox.publisher.sinks.port import Keeping

from .keeping import topic_keepings
from .refusal import error_text, shown
from .tokens import TokenProvider
from .url import KafkaSettings

logger = logging.getLogger("dsql_outbox")

_SLICE: Final = 0.1
"""The longest flush, in seconds.

A flush of 0.2 s or more runs in parts, and continues after a callback raised. The
callbacks of the next part then run with that exception pending (see `Callbacks`).
"""
_CLOSING: Final = 0.5  # seconds to wait for the reports of messages that are given up
_ANSWER: Final = 1.0  # seconds that brokers have to answer a question
_IDLE: Final = 1.0  # seconds between two looks for errors while there are no messages
_RENEWAL: Final = 1.0  # seconds between two looks at a password that may change
_ALL_DOWN: Final = "_ALL_BROKERS_DOWN"
_SECRETS: Final = ("password", "secret", "pem", "config")  # parts of names of librdkafka's settings

_PAUSE: Final = 60.0  # seconds from one line to the next


class Callbacks:
    """A queue of calls: callbacks add to it from any thread, and the event loop makes the calls.

    confluent-kafka may run a callback while an exception of an earlier callback is
    still pending. Then each function written in C takes effect and also raises
    `SystemError`. A lock that the callback takes stays locked, also one of `logging`.
    So a callback only calls `call_soon`, and `call_soon` stores the call before anything can
    fail.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._is_due = False

    def attach(self) -> None:
        """Use the running event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def call_soon(self, call: Callable[..., None], *args: object) -> None:
        """Schedule a call in the event loop; may be called from any thread."""
        self._calls.append((call, args))
        if self._loop is not None and not self._is_due:
            self._is_due = True
            self._loop.call_soon_threadsafe(self.run)

    def run(self) -> None:
        """Make the waiting calls, in their order; must be called in the event loop."""
        self._is_due = False  # first: a call that is added after the loop must schedule `run` again
        while self._calls:
            call, args = self._calls.popleft()
            call(*args)


class LogLimit:
    """Lets one log line pass per minute."""

    def __init__(self) -> None:
        self._next = 0.0

    def passes(self) -> bool:
        """Whether the line may be written now; if so, the next one must wait."""
        now = monotonic()
        if now < self._next:
            return False
        self._next = now + _PAUSE
        return True


class KafkaClient:
    """Creates the producer, serves its callbacks, and replaces it on request.

    After a failure of the broker a new producer is created. An idempotent producer
    that the broker refuses once, for example because of a sequence number out of
    order, may stay refused.

    The callbacks of librdkafka run inside `flush`, in a worker thread. One flush at a
    time serves the messages of all calls. `callbacks` is the queue to which the
    producer's callbacks add their calls. `on_fatal` is called from the event loop, with
    the producer and the reason, when the producer has stopped for good. A quiet client
    writes no log lines about its broker: another one of the same sink does.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        callbacks: Callbacks,
        on_fatal: Callable[[Producer, str], None],
        *,
        is_quiet: bool = False,
    ) -> None:
        self._settings = settings
        self._is_quiet = is_quiet
        self._callbacks = callbacks
        self._on_fatal = on_fatal
        self._producer: Producer | None = None
        self._serving: dict[Producer, asyncio.Task[None]] = {}
        self._produced = asyncio.Event()
        self._opening = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._asked_at, self._has_answered = -math.inf, False
        self._last_error: KafkaError | None = None
        self._password: str | None = None
        self._renews_at = -math.inf
        self._lines = _Lines()
        self._log_limit = LogLimit()
        self._is_logged = False

    async def producer(self) -> Producer:
        """The producer; creates one at the first call and after `replace`.

        Raises `SettingsError` for a setting that librdkafka refuses, and
        `SinkUnavailable` when no broker answers within the timeout.
        """
        async with self._opening:
            if self._producer is None:
                producer = self._producer = await self._open()
                task = self._serving[producer] = asyncio.create_task(self._serve(producer))
                task.add_done_callback(lambda _: self._serving.pop(producer))
        return self._producer

    def serves(self, producer: Producer) -> bool:
        """Whether this is still the producer that `producer` gives."""
        return self._producer is producer

    def flush_soon(self) -> None:
        """Send the produced messages now; the answers arrive in the background."""
        self._produced.set()

    def replace(self, producer: Producer) -> None:
        """Let the next `producer` create a new producer; this one ends after its last message."""
        if self._producer is producer:
            self._producer = None
            self._produced.set()

    def drop(self, producer: Producer) -> None:
        """Give up the messages of this producer, and let the next `producer` create a new one."""
        self.replace(producer)
        if (task := self._serving.get(producer)) is not None:
            task.cancel()

    def note_answers(self) -> None:
        """Record that every message of a call was answered, and clear the last error."""
        if self._is_logged:
            logger.info("%s: the broker answers again", self._settings)
        self._is_logged, self._last_error = False, None
        self._lines.failure = ""

    async def ask(self, producer: Producer, reason: str = "no broker answers") -> None:
        """Ask for a list of topics. Raises `SinkUnavailable` if no answer comes within a second.

        Calls that ask at the same time share one question.
        """
        began = asyncio.get_running_loop().time()
        async with self._asking:
            if self._asked_at < began:
                self._has_answered = await self._answers(producer, _ANSWER)
                self._asked_at = asyncio.get_running_loop().time()
        if not self._has_answered:
            raise self.unavailable(reason)

    def unavailable(self, reason: str) -> SinkUnavailable:
        """The error for a broker out of reach: the brokers, the reason, and librdkafka's own."""
        error, said = self._last_error, self._lines.failure
        if error is not None and not (said and error.name() == _ALL_DOWN):
            said = error_text(error)
        if "Disconnected" in said and self._producer is None:
            said += "; does the listener want TLS (tls=yes) or a login?"
        return SinkUnavailable(f"{self._settings}: {reason}" + (f" ({said})" if said else ""))

    async def keepings(self, topics: Collection[str]) -> list[Keeping]:
        """How the brokers keep these topics. Raises librdkafka's errors."""
        await self._read_password()
        options = self._options() | {"logger": _Lines(), "error_cb": _ignore}
        ask = partial(topic_keepings, self._settings, options, topics)
        return await to_thread.run_sync(ask, abandon_on_cancel=True)

    async def close(self) -> None:
        """Give up undelivered messages and disconnect; takes about a second at most."""
        self._producer = None
        tasks = list(self._serving.values())
        for task in tasks:
            task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _open(self) -> Producer:
        self._last_error, self._lines = None, _Lines()
        self._callbacks.attach()
        await self._read_password()
        if self._settings.token is None:
            producer = self._make()
        else:
            await self._try_token(self._settings.token)
            # librdkafka waits for the first token of a producer, which would stop the event loop.
            producer = await to_thread.run_sync(self._make)
        if not await self._answers(producer, self._settings.timeout):
            with suppress(KafkaException):  # a fatal error
                producer.poll(0)  # runs the callbacks, which know the reason
            self._callbacks.run()
            raise self.unavailable("no broker answers")
        return producer

    async def _try_token(self, token: TokenProvider) -> None:
        """Get a token. librdkafka hides the reason of a callback that failed."""
        try:
            with anyio.fail_after(self._settings.timeout):
                await to_thread.run_sync(token, abandon_on_cancel=True)
        except Exception as error:  # noqa: BLE001 - whatever the provider raises
            reason = f"no token for the login: {type(error).__name__}"
            raise SinkUnavailable(f"{self._settings}: {reason}") from system_error(error)

    @staticmethod
    async def _answers(producer: Producer, seconds: float) -> bool:
        try:
            await to_thread.run_sync(partial(producer.list_topics, timeout=seconds))
        except KafkaException:
            return False
        return True

    def _make(self) -> Producer:
        note = {"error_cb": partial(self._callbacks.call_soon, self._note)}
        try:
            return Producer(self._options() | note)
        except KafkaException as error:
            text = self._without_secrets(error.args[0].str())
            raise SettingsError(f"librdkafka refuses a setting: {text}") from None

    def _options(self) -> dict[str, object]:
        options: dict[str, object] = {**self._settings.with_password(self._password)}
        options["logger"] = self._lines
        if (token := self._settings.token) is not None:
            options["oauth_cb"] = partial(_token, token)
        return options

    async def _read_password(self) -> None:
        """Read the password again. The last one stays if that fails."""
        if self._settings.password is not None:
            with suppress(SettingsError):
                self._password = await to_thread.run_sync(self._settings.password)

    async def _renew_login(self, producer: Producer, password: str | None) -> str | None:
        """Give a producer the password, if that is a new one. It logs in with it next time.

        librdkafka asks nobody, so it must have the password before a connection breaks.
        """
        if self._settings.password is not None and monotonic() >= self._renews_at:
            self._renews_at = monotonic() + _RENEWAL
            await self._read_password()
        if self._password is not None and self._password != password:
            user = self._settings.properties["sasl.username"]
            producer.set_sasl_credentials(user, self._password)
        return self._password

    async def _serve(self, producer: Producer) -> None:
        one_at_a_time = CapacityLimiter(1)
        password = self._password
        try:
            while self._producer is producer or len(producer):
                password = await self._renew_login(producer, password)
                if len(producer):
                    await to_thread.run_sync(producer.flush, _SLICE, limiter=one_at_a_time)
                    self._callbacks.run()  # a callback may have failed to schedule this
                else:
                    self._produced.clear()
                    with anyio.move_on_after(_IDLE):
                        await self._produced.wait()
        except Exception as error:  # noqa: BLE001 - see _fatal
            reason = _fatal(error)
            if not self._is_quiet:
                logger.warning("%s: the producer has stopped: %s", self._settings, reason)
            self.replace(producer)
            self._callbacks.run()
            self._on_fatal(producer, reason)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(_give_up, producer)

    def _note(self, error: KafkaError) -> None:
        # While a connection is opened, the exception of `_open` reports the error.
        is_news = self._producer is not None and self._last_error is None and not self._is_quiet
        if is_news and self._log_limit.passes():
            logger.warning("%s: %s", self._settings, error_text(error))
            self._is_logged = True
        # "All brokers are down" says less than the error of the last broker.
        if self._last_error is None or error.name() != _ALL_DOWN:
            self._last_error = error

    def _without_secrets(self, text: str) -> str:
        for name, value in self._settings.with_password(self._password).items():
            if value and any(secret in name for secret in _SECRETS):
                text = text.replace(value, "***")
        return text


def _token(token: TokenProvider, config: str | None) -> tuple[str, float]:
    """What librdkafka calls when it needs a token."""
    del config  # of its own configuration of tokens, which is not used
    return token()


def _ignore(error: KafkaError) -> None:
    """Tell nobody: the producer beside this client does."""


def _fatal(error: BaseException) -> str:
    """The reason why the producer stopped: the error itself, or the root of a failed callback."""
    while error.__cause__ and not isinstance(error, KafkaException):
        error = error.__cause__
    found = error.args[0] if isinstance(error, KafkaException) else error
    return error_text(found) if isinstance(found, KafkaError) else type(found).__name__


def _give_up(producer: Producer) -> None:
    end = monotonic() + _CLOSING
    with suppress(KafkaException):
        producer.purge()
    while len(producer) and monotonic() < end:
        with suppress(Exception):  # a producer that has stopped for good raises here
            producer.flush(_SLICE)


class _Lines:
    """Takes the log lines of librdkafka, which go to standard error by default.

    It keeps the last one about a connection that failed. When the broker closes a
    connection immediately, as it does when a plaintext client comes to a listener with TLS,
    the error callback hears nothing of it.
    """

    failure = ""

    def log(self, *line: object) -> None:
        """Take a line: level, format, and its parts.

        A Python logger must not be used here: it takes a lock (see `Callbacks`).
        """
        _, _, *parts = line
        kind, _, text = parts
        if kind == "FAIL":
            self.failure = shown(f"{text}".partition("]: ")[2])  # without the name of the thread
