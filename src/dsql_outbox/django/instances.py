"""The model instances of a run of `transact`.

A run that is lost leaves what it did to instances: a key, an attribute that was added up. The next
run would go on from there. So a run saves only instances that it made or loaded itself.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, Final

from django.db.models import Model, signals

from dsql_outbox.outbox.sessions.django_transaction import RunSession

_RUN: Final = "dsql_outbox_run"
"""The attribute of an instance's state with the id of the run that made it."""

_current: ContextVar[RunSession | None] = ContextVar("dsql_outbox_django_run", default=None)


@contextmanager
def of_run(session: RunSession) -> Generator[None]:
    """Refuse to save or delete an instance from outside of the block."""
    _connect()
    token = _current.set(session)
    try:
        yield
    finally:
        _current.reset(token)


@cache
def _connect() -> None:
    """Watch the instances, once: a project without `transact` pays nothing for it.

    A receiver of `pre_delete` would make each delete of a query load its rows first. Those are rows
    that the query has found itself, so only the method of an instance is watched.
    """
    signals.post_init.connect(_mark)
    signals.pre_save.connect(_require_own)
    delete: Any = Model.delete

    @wraps(delete)  # with its attributes, such as that templates must not call it
    def delete_own(self: Model, *args: Any, **options: Any) -> Any:
        _require_own(type(self), self)
        return delete(self, *args, **options)

    Model.delete = delete_own  # type: ignore[method-assign]


def _mark(instance: Any, **_: object) -> None:
    if (current := _current.get()) is not None:
        setattr(instance._state, _RUN, current.run_id)  # noqa: SLF001 - documented for models


def _require_own(sender: type[Any], instance: Any, *, raw: bool = False, **_: object) -> None:
    current = _current.get()
    if current is None or raw:
        return
    if getattr(instance._state, _RUN, None) != current.run_id:  # noqa: SLF001 - as above
        name = sender.__name__
        raise current.refuse(
            f"has saved or deleted an instance of {name} from outside of it, which a lost run "
            "would leave changed",
            f"make or load the {name} in the function",
        )
