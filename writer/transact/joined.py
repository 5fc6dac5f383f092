"""The sessions and connections that functions of `transact` have now.

`append_to` finds its run here, so it is the same verb inside of a run and outside.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from dsql_outbox.outbox.event.event import event_ids
from dsql_outbox.writer.core import Core

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
    if not _joined:
        return None
    run, transaction = _joined.get(id(_synchronous(session)), (None, None))
    return transaction if run is not None and run.call.core is core else None


def _synchronous(given: Any) -> Any:
    """Return the Session or Connection behind an asynchronous one, and others as they are.

    Django's ``connection`` stands for that of each thread.
    """
    if hasattr(given, "in_atomic_block"):
        return given.ensure_connection.__self__
    return getattr(given, "sync_session", None) or getattr(given, "sync_connection", given)
