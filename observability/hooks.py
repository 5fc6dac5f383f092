"""How facts are delivered: to hooks, and to the scopes that hooks may open.

A hook is a callable that takes a fact. For a fact that begins a write or a publish
(`WriteStarted`, `PublishStarted`) it may return a `Scope`. The scope then gets every later
fact of that write or publish, and may add headers to the message. So the writer and the relay
do not deal with spans.

Most hooks are told of each event and message. A hook that needs less says so by a method, and
then fewer facts are made (`skips_successes`, `takes_calls`, `Listeners`).
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from .facts import Fact


class Scope(Protocol):
    """A hook's state for the length of one write or one publish."""

    @property
    def carrier(self) -> Mapping[str, str]:
        """Headers to add to the message, such as ``traceparent``."""
        ...

    def __call__(self, fact: Fact, /) -> None:
        """Take a later fact of this scope."""
        ...

    def __enter__(self) -> object:
        """Make this scope current in the running task or thread."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> bool | None:
        """Make the previous scope current again."""
        ...


class Hook(Protocol):
    """A callable that receives facts. It must return quickly and must not raise."""

    def __call__(self, fact: Fact, /) -> Scope | None:
        """Take a fact; for one that begins a write or a publish, optionally return a scope."""
        ...


class Scopes:
    """The scopes that several hooks opened for one write or publish, combined into one."""

    __slots__ = ("_hooks", "_scopes", "_stack", "is_quiet", "is_silent")

    def __init__(
        self, hooks: Iterable[Hook], fact: Fact | None, *, is_silent: bool = False
    ) -> None:
        """Give every hook the fact that begins.

        With None the scopes are quiet: no hook is told of a single event that is stored, so none
        begins a scope. They are silent if no hook is told of a transaction either.
        """
        self.is_quiet = fact is None
        self.is_silent = is_silent
        self._hooks: list[Hook] = []
        self._scopes: list[Scope] = []
        if fact is None:
            self._hooks += hooks
            return
        for hook in hooks:
            scope = hook(fact)
            if scope is None:
                self._hooks.append(hook)
            else:
                self._scopes.append(scope)

    @property
    def carrier(self) -> dict[str, str]:
        """The headers of all scopes; for equal names, those of the later scope."""
        headers: dict[str, str] = {}
        for scope in self._scopes:
            headers.update(scope.carrier)
        return headers

    def __call__(self, fact: Fact) -> None:
        """Give a fact to every scope, and to each hook that opened none."""
        for scope in self._scopes:
            scope(fact)
        for hook in self._hooks:
            hook(fact)

    def tell_each(self, fact: Fact) -> None:
        """Give a fact about one of several, but not to hooks that are told of all together."""
        for scope in self._scopes:
            scope(fact)
        for hook in self._hooks:
            if not takes_calls(hook):
                hook(fact)

    def __enter__(self) -> Self:
        # Most writes have no scopes, and an empty ExitStack would still cost time.
        self._stack = ExitStack() if self._scopes else None
        if self._stack is not None:
            for scope in self._scopes:
                self._stack.enter_context(scope)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stack is not None:
            self._stack.__exit__(kind, error, trace)


def skips_successes(hook: Hook) -> bool:
    """Whether a hook does nothing now with a write or publish that begins, or that succeeds.

    A hook says so by a method of this name. The facts are a large part of the cost of a
    write, and most of that of a publish. So none is made if all hooks skip them.
    """
    skips = getattr(hook, "skips_successes", None)
    return skips is not None and skips()


def takes_calls(hook: Hook) -> bool:
    """Whether a hook wants the transactions of a writer and the calls of a sink as a whole.

    A hook says so by a method of this name. Of the events that a transaction has stored it gets
    one `WritesStored`, and `AttemptEnded` and `WriteEnded` of any other outcome. Of a call of the
    sink it gets `CallStarted` for each topic and `CallEnded` for each result, and of single
    messages only the `PublishEnded` of those that were not delivered.
    """
    takes = getattr(hook, "takes_calls", None)
    return takes is not None and takes()


class Listeners:
    """The hooks of a publisher by what they want to know of a call of the sink.

    `messages` are told of each message, or of those that one of them does not skip. `calls` are
    told of the call, and `others`, with the calls' hooks, of each message that is not delivered.

    A hook that can do without some messages has a method ``skips_publish(carrier)``: whether it
    does nothing with a message of this trace context, unless it fails. It may be told of the
    message nevertheless. If it is not, and the message fails, it is told of the start at the end.
    """

    __slots__ = ("_skips", "calls", "messages", "others")

    def __init__(self, hooks: Iterable[Hook]) -> None:
        """Ask every hook what it wants now."""
        self.messages: list[Hook] = []
        self.calls: list[Hook] = []
        self.others: list[Hook] = []
        self._skips: list[Callable[[Mapping[str, str]], bool] | None] = []
        for hook in hooks:
            if skips_successes(hook):
                self.others.append(hook)
            elif takes_calls(hook):
                self.calls.append(hook)
                self.others.append(hook)
            else:
                self.messages.append(hook)
                self._skips.append(getattr(hook, "skips_publish", None))

    def skip(self, carrier: Mapping[str, str]) -> bool:
        """Whether no hook is to be told of a message of this trace context, unless it fails."""
        return all(skips is not None and skips(carrier) for skips in self._skips)


def emit(hooks: Iterable[Hook], fact: Fact) -> None:
    """Give every hook a fact that belongs to no scope."""
    for hook in hooks:
        hook(fact)
