"""A sink that a publisher opens itself, and opens again after it failed."""

import asyncio
import inspect
import logging
import socket
from collections.abc import AsyncGenerator, Callable, Container, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any, Final, cast

import anyio

from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.errors import OutboxError, SinkUnavailable
from dsql_outbox.outbox.interrupt import is_being_cancelled
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.first_errors import FirstErrors
from dsql_outbox.publisher.supervision import in_background

from .port import Answer, Sink, keeps_prefix, takes
from .registry import open_sink

logger: Final = logging.getLogger("dsql_outbox")

_NETWORK: Final = (ConnectionError, TimeoutError, EOFError, socket.gaierror)
"""Errors of a connection: the network or the broker is at fault, and no setting."""

SinkFactory = Callable[[], Sink | AbstractAsyncContextManager[Sink]]
"""Makes a sink, or an asynchronous context manager that opens and closes one."""

SinkSource = str | SinkFactory | Sink
"""A URL as for `open_sink`, a factory, or an open sink, which only its owner can open again."""


def sink_factory(call: str, source: Any) -> SinkFactory | None:
    """Return the function that opens a sink, or None if `source` is an open sink.

    Does no I/O. Raises `TypeError`, with the expression to write, for anything else, and the
    errors of `open_sink` for a URL. `call` is what takes the source.
    """
    if isinstance(source, str):
        open_sink(source)  # a malformed URL fails here, and a missing extra
        return partial(open_sink, source)
    if hasattr(source, "publish") and not isinstance(source, type):
        return None
    # The context managers of contextlib are callable too, as decorators.
    is_function = callable(source) and not inspect.iscoroutinefunction(source)
    if is_function and (isinstance(source, type) or not hasattr(source, "__aenter__")):
        return cast("SinkFactory", source)
    takes = f"{call} takes the URL of a sink, a function that opens one, or an open sink"
    raise wrong_type(takes, source, f'{call}(database, sink="nats://..")')


class KeptSink:
    """Opens a sink for the time of `kept`, again when it failed, and publishes to it.

    It waits for nothing: a call that finds no open sink asks for one, and the breaker of the
    relay says when the next call comes. Before the sink was open for the first time nothing is
    relayed, so `wait_until_open` asks. `decorate` is applied to each sink that was opened.
    """

    system = "kept"

    def __init__(self, factory: SinkFactory, decorate: Callable[[Sink], Sink]) -> None:
        self._factory = factory
        self._decorate = decorate
        self._sink: Sink | None = None
        self._failure: SinkUnavailable | None = None
        self.has_opened = False
        """Whether the sink was open at any time."""
        self.takes: Container[type] = ()
        """What the sinks of the factory take, which are alike."""
        self._attempt: anyio.CancelScope | None = None
        self._wanted = anyio.Event()  # somebody asks for an open sink
        self._tried = anyio.Event()  # it is open, or the attempt that was asked for has failed
        self._lost = anyio.Event()  # it is to be closed
        self._is_over = False
        self._first = FirstErrors()

    @property
    def keeps_prefix(self) -> bool:
        """Whether the open sink does; the sinks of one factory are alike."""
        return self._sink is not None and keeps_prefix(self._sink)

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[None]:
        """Open the sink, and close it after the block, which begins when one attempt has ended.

        If the broker is out of reach, calls of `publish` try again. So they do after an error of
        the network, and after one that is none of this library once the sink was open. Any other
        error of an opening ends the block and is raised in its place.
        """
        async with in_background(self._keep, self._end):
            yield

    async def wait_until_open(self, next_wait: Callable[[], float]) -> None:
        """Wait until the sink was open at some time, or until `give_up`.

        `next_wait` returns the seconds until the next attempt, after each one that failed.
        """
        while not (self.has_opened or self._is_over):
            if self._failure is not None:
                seconds = next_wait()
                text = "Cannot open the sink, the next attempt is in %g s: %s"
                logger.warning(text, seconds, self._failure)
                await anyio.sleep(seconds)
            with suppress(SinkUnavailable):
                await self._wait_for_sink(wait=True)

    def give_up(self) -> None:
        """Open no more: calls that find no open sink get `SinkUnavailable`."""
        self._is_over = True
        self._wanted.set()
        if self._sink is None and self._attempt is not None:
            self._attempt.cancel()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Publish to the open sink.

        Raises `SinkUnavailable` if there is none, and in place of an unexpected error of the sink,
        which is then closed, to be opened again. Errors of this library are raised as they are,
        since opening again does not cure them.
        """
        sink = await self._wait_for_sink(wait=bool(messages))
        try:
            await sink.publish(messages, answer)
        except OutboxError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, another sink may work
            lost = raised_by_sink(error)
            if sink is self._sink:  # one sink may fail many calls
                self._sink, self._failure, self._tried = None, lost, anyio.Event()
                self._lost.set()
                # The relay logs each wait for it, with the reason.
                text = "Publisher opens its sink again: %s (later ones are not logged)"
                self._first.log(text, lost, error)
            raise lost from None

    async def _wait_for_sink(self, *, wait: bool) -> Sink:
        """Ask for an open sink. A probe waits for the first attempt only: it has little time."""
        if self._sink is not None:  # while it is open, no attempt would end
            return self._sink
        if self._tried.is_set() and not self._is_over:
            self._tried = anyio.Event()
            self._wanted.set()
        if wait or self._failure is None:
            await self._tried.wait()
        if self._sink is None:
            raise self._failure or SinkUnavailable("the publisher has no open sink")
        return self._sink

    async def _keep(self, started: Callable[[], None]) -> None:
        try:
            while not self._is_over:
                self._wanted, self._lost = anyio.Event(), anyio.Event()
                with anyio.CancelScope() as self._attempt:
                    await self._open(started)
                self._sink = None
                self._tried.set()
                started()
                await self._wanted.wait()
        finally:
            self._is_over = True
            self._tried.set()

    async def _open(self, started: Callable[[], None]) -> None:
        """Open the sink, and close it when it is lost."""
        is_open = False
        try:
            async with _manager(self._factory()) as sink:
                self._sink, self._failure, is_open = self._decorate(sink), None, True
                self.takes = takes(sink)
                self.has_opened = True
                self._tried.set()
                started()
                await self._lost.wait()
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            self._note_failure(
                raised_by_sink(error)
            )  # something that the sink awaited was cancelled
        except SinkUnavailable as error:
            self._note_failure(error)
        except Exception as error:
            is_setting = isinstance(error, OutboxError) and not is_open
            # A factory that has worked has no defect.
            passes = self.has_opened or isinstance(error, _NETWORK)
            if self._is_over or is_setting or not passes:
                raise
            self._note_failure(raised_by_sink(error))

    def _note_failure(self, failure: SinkUnavailable) -> None:
        if self._failure is None and self.has_opened:  # else it was told before
            logger.warning("Publisher opens its sink again: %s", failure)
        self._failure = failure

    def _end(self) -> None:
        self.give_up()
        self._lost.set()


def _manager(made: Sink | AbstractAsyncContextManager[Sink]) -> AbstractAsyncContextManager[Sink]:
    return made if isinstance(made, AbstractAsyncContextManager) else nullcontext(made)


def raised_by_sink(error: BaseException) -> SinkUnavailable:
    """An unexpected error of a sink, by the name of its class: its text may quote a message."""
    while isinstance(error, BaseExceptionGroup):  # of the tasks of the sink
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return SinkUnavailable(f"the sink raised {type(error).__name__}")
