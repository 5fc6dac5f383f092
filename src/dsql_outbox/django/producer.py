"""What a project calls to store events: `append` in its own transaction, `transact`, `writer`."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, Literal, TypeVar, overload

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils.connection import ConnectionDoesNotExist

from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import SettingsError, TransactionMisused
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.outbox.sessions.caller_session import refuse_commit
from dsql_outbox.outbox.sessions.django_transaction import RunSession
from dsql_outbox.outbox.sessions.joinable import session_of
from dsql_outbox.outbox.sessions.lent_sessions import DjangoSessions
from dsql_outbox.outbox.unit_of_work.function_run import require_eager
from dsql_outbox.outbox.unit_of_work.loops import do, perform
from dsql_outbox.outbox.unit_of_work.turns import EntityKey
from dsql_outbox.writer.attempt.pending import OnDuplicate
from dsql_outbox.writer.program.call_arguments import require_function
from dsql_outbox.writer.settings import WriterSettings
from dsql_outbox.writer.transact.append import APPEND, TRANSACT
from dsql_outbox.writer.transact.call import require_sync
from dsql_outbox.writer.writer import Writer

from .databases import connection_of, database_url
from .instances import of_run
from .settings import outbox_settings
from .testing import note_append

T = TypeVar("T")

_APP: Final = "dsql_outbox.django"

_writers: Final[dict[tuple[str, str, WriterSettings], Writer]] = {}
"""The writers of this process, by address, schema and settings: tests have others than the site."""


def writer(using: str = DEFAULT_DB_ALIAS) -> Writer:
    """Return the writer of a database, for `Writer.write`, `stream` and `entity`.

    It connects to the database as Django does, on connections of its own. Each is closed after
    its use, because it would keep a test database from being dropped. Don't close the writer:
    the process has one for each database.

    Raises `SettingsError` if the app is not installed, and for invalid settings.
    """
    if not apps.is_installed(_APP):
        raise SettingsError(f'{_APP} is not installed: add "{_APP}" to INSTALLED_APPS')
    given = outbox_settings()
    url = database_url(using)
    key = url, given.schema, given.writer
    if (found := _writers.get(key)) is None:
        made = Writer(Database(url, schema=given.schema), given.writer)
        found = _writers.setdefault(key, made)
    return found


def append(
    event: EventSource, *, using: str = DEFAULT_DB_ALIAS, expected_version: int | None = None
) -> Receipt:
    """Write one event in the open block of `atomic`, which you commit and retry.

    In the function of `transact` it is part of its run. This is `Writer.append_to` with Django's
    connection of the alias `using`. The receipt is valid after the commit.

    Raises `TransactionMisused` outside of `atomic`, `SettingsError` for an alias without an
    outbox, and otherwise what `Writer.append_to` raises. After any error the block is rolled
    back at its end, even if you catch the error.
    """
    try:
        connection = connection_of(using)
        receipt = writer(using).append_to(connection, event, expected_version=expected_version)
        note_append(using, event, receipt)
    except BaseException as error:
        with suppress(ConnectionDoesNotExist):  # the alias is no database at all
            perform(refuse_commit(connections[using], error, APPEND, session_of), do)
        raise
    return receipt


@overload
def transact(
    function: Callable[[], T],
    *,
    using: str = ...,
    entities: Iterable[EntityKey] = ...,
    on_duplicate: Literal["error"] = ...,
    timeout: float | None = ...,
) -> T: ...


@overload
def transact(
    function: Callable[[], T],
    *,
    using: str = ...,
    entities: Iterable[EntityKey] = ...,
    on_duplicate: OnDuplicate,
    timeout: float | None = ...,
) -> T | Receipt: ...


def transact(
    function: Callable[[], T],
    *,
    using: str = DEFAULT_DB_ALIAS,
    entities: Iterable[EntityKey] = (),
    on_duplicate: OnDuplicate = "error",
    timeout: float | None = None,
) -> T | Receipt:
    """Run `function` in a block of `atomic` that is retried. Return its result.

    This is `Writer.transact` on Django's connection of the alias `using`: after a conflict or a
    lost connection, `function` runs again in another block. So it makes or loads the model
    instances that it saves, and has no other side effects. It writes events by `append`. Hooks of
    `on_commit` run after the commit of the run that was stored, in this call. The other arguments
    are those of `Writer.transact`.

    Raises `TransactionMisused` in a block of `atomic`, such as that of ATOMIC_REQUESTS or of a
    `TestCase`, and for a model instance from outside of the function. Raises the errors of
    `Writer.transact`, and those of the database in Django's wrapper.
    """
    require_function("transact", function)
    checked: Any = function
    require_sync(checked)
    connection = connection_of(using)
    own = writer(using)
    _refuse_inside(connection, using)

    def run(session: RunSession) -> tuple[T, list[Any]]:
        with of_run(session):
            try:
                value = function()
                require_eager("transact", value)
            except Exception as error:
                session.note_raised(error)
                raise
        hooks, connection.run_on_commit = connection.run_on_commit, []
        return value, hooks

    vendor_takes = own._core.database.takes_local_settings  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    outcome = own._transact_in(  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        DjangoSessions(connection, TRANSACT, takes_local_settings=vendor_takes),
        run,
        entities=entities,
        on_duplicate=on_duplicate,
        timeout=timeout,
    )
    if isinstance(outcome, Receipt):
        return outcome
    # Here, since a run whose COMMIT was lost may turn out to be stored later.
    value, connection.run_on_commit = outcome
    connection.run_and_clear_commit_hooks()
    return value


def _refuse_inside(connection: Any, using: str) -> None:
    """Raise `TransactionMisused` unless `transact` may begin and commit here."""
    why = instead = ""
    if any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks):
        why = "a TestCase has begun a transaction that it rolls back"
        instead = "TransactionTestCase, or django_db(transaction=True) of pytest-django"
    elif connection.in_atomic_block and connection.settings_dict["ATOMIC_REQUESTS"]:
        why = f"ATOMIC_REQUESTS of {using} has begun a transaction for the request"
        instead = f'@transaction.non_atomic_requests(using="{using}") for this view'
    elif connection.in_atomic_block:
        why = "a block of atomic is open"
        instead = "append in that block, or transact outside of it"
    elif not connection.settings_dict["AUTOCOMMIT"]:
        why = f"AUTOCOMMIT of {using} is off"
        instead = "append, and your own commit and retry"
    if why:
        raise TransactionMisused(
            f"transact begins and commits its own transaction, and {why}: use {instead}"
        )
