"""How facts reach those who watch: hooks, and the scopes that hooks may open.

A hook is one callable. For a fact that begins something (`WriteStarted`,
`PublishStarted`) it may return a `Scope`, which then gets every later fact of
that same thing and may add headers that travel with the message. That is how
spans fit without the core knowing of spans.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from .facts import Fact


class Scope(Protocol):
    """What a hook keeps for the length of one write or one publish."""

    @property
    def carrier(self) -> Mapping[str, str]:
        """Headers to send along, such as ``traceparent``."""
        ...

    def __call__(self, fact: Fact, /) -> None:
        """Take a later fact of this scope."""
        ...

    def __enter__(self) -> object:
        """Make this scope the current one of the running task or thread."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> bool | None:
        """Make the scope before it current again."""
        ...


class Hook(Protocol):
    """One who watches. It must be quick and must not raise."""

    def __call__(self, fact: Fact, /) -> Scope | None:
        """Take a fact; for one that begins something, maybe open a scope."""
        ...


class Scopes:
    """The scopes that several hooks opened for one thing, as one."""

    __slots__ = ("_hooks", "_scopes", "_stack")

    def __init__(self, hooks: Iterable[Hook], fact: Fact) -> None:
        self._hooks: list[Hook] = []
        self._scopes: list[Scope] = []
        for hook in hooks:
            scope = hook(fact)
            if scope is None:
                self._hooks.append(hook)
            else:
                self._scopes.append(scope)

    @property
    def carrier(self) -> dict[str, str]:
        """The headers of all scopes; a later one wins."""
        headers: dict[str, str] = {}
        for scope in self._scopes:
            headers.update(scope.carrier)
        return headers

    def __call__(self, fact: Fact) -> None:
        """Pass a fact on to every scope, and to the hooks that opened none."""
        for scope in self._scopes:
            scope(fact)
        for hook in self._hooks:
            hook(fact)

    def __enter__(self) -> Self:
        self._stack = ExitStack() if self._scopes else None  # most have none: then it costs nothing
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


def emit(hooks: Iterable[Hook], fact: Fact) -> None:
    """Tell every hook a fact that belongs to no scope."""
    for hook in hooks:
        hook(fact)
