"""The sessions and connections that functions of `transact` have now.

`append_to` finds its run here, so it is the same verb inside of a run and outside.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

from dsql_outbox.outbox.event.event import event_ids
from dsql_outbox.outbox.sessions import caller_session
from dsql_outbox.outbox.sessions.caller_session import CallerSession, Joining
from dsql_outbox.outbox.unit_of_work.primitives import Program
from dsql_outbox.writer.core import Core

from .append import APPEND
from .call import Run

_joined: Final[dict[int, tuple[Run[Any], Any]]] = {}
"""The run and its transaction object, by the id of the session: it lives as long as its entry."""


@contextmanager
def joined(run: Run[Any], session: Any, transaction: Any) -> Generator[None]:
    """Let `append_to` find the transaction of a run by its session during the block.

    `Event.new` gives the n-th event of each run of a call the same id.
    """
    keys = [id(_synchronous(each)) for each in (session, *run.aliases)]
    _joined.update(dict.fromkeys(keys, (run, transaction)))
    try:
        with event_ids(run.next_event_id):
            yield
    finally:
        for key in keys:
            del _joined[key]


def transaction_of(core: Core, session: Any) -> Any | None:
    """Return the transaction of the run that this session belongs to, if it is of this writer."""
    run, transaction = _run_of(session)
    return transaction if run is not None and run.call.core is core else None


def refuse_commit(
    given: Any, error: BaseException, session_of: Callable[[Any, Joining], CallerSession]
) -> Program[None]:
    """Keep the run or the transaction of this session from its COMMIT: an append ended in an error.

    The error may be an interrupt at any point of the append.
    """
    run, _ = _run_of(given)
    if run is not None:
        run.note_refused(error)
        return
    yield from caller_session.refuse_commit(given, APPEND, session_of)


def _run_of(session: Any) -> tuple[Run[Any] | None, Any]:
    return _joined.get(id(_synchronous(session)), (None, None)) if _joined else (None, None)


def _synchronous(given: Any) -> Any:
    """Return the Session or Connection behind an asynchronous one, and others as they are.

    Django's ``connection`` stands for that of each thread.
    """
    if hasattr(given, "in_atomic_block"):
        return given.ensure_connection.__self__
    return getattr(given, "sync_session", None) or getattr(given, "sync_connection", given)
