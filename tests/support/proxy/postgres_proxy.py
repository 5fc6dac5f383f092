"""A proxy in front of PostgreSQL that causes faults at chosen statements."""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from dsql_outbox.outbox.database.database import DEFAULT_SCHEMA, Database
from dsql_outbox.outbox.errors import SettingsError

from .client_session import Batch, ClientSession, Reaction
from .faults import WRITES, CutPoint, Held, Rule, before, cut, forward, refuse, refuse_commit, stall
from .tcp_proxy import Link, Streams, TcpProxy
from .wire_protocol import error_response

_PORT: Final = 5432
_CONFLICT: Final = "change conflicts with another transaction, please retry: (OC000)"

_OF_ENCRYPTION: Final = {"sslmode", "sslnegotiation", "sslrootcert", "gssencmode"}


class PostgresProxy(TcpProxy):
    """A proxy for the server of `url`, as a context manager.

    Each fault affects the next `times` batches (None: all, until `heal`; 0: none)
    that run a statement containing the text `matching`. Case and comments of the statement are
    ignored, and ``COMMIT`` does not match ``READ COMMITTED``. A batch is the input that a client
    sends before it waits for the server. If several faults match, the one that
    was set first applies. Executing a prepared statement counts as running it,
    preparing it does not.

    Raises `SettingsError` unless `url` is a ``postgresql://`` URL with a host.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"postgresql", "postgres"} or not parts.hostname:
            raise SettingsError("the proxy needs a URL postgresql://..@HOST:PORT/.., over TCP")
        super().__init__(parts.hostname, parts.port or _PORT)
        user, at, _ = parts.netloc.rpartition("@")
        # The proxy cannot read encrypted messages, so it refuses encryption, and a client that
        # requires it cannot connect. Nothing is added: not every driver knows libpq's options.
        options = {k: v for k, v in parse_qsl(parts.query) if k not in _OF_ENCRYPTION}
        self.url: Final = urlunsplit(
            parts._replace(
                netloc=f"{user}{at}127.0.0.1:{self.port}", query=urlencode(options, quote_via=quote)
            )
        )
        """The URL of the same database, through the proxy."""
        self._script = _Script()

    @property
    def round_trips(self) -> int:
        """How often a client got the complete answer to a batch; connecting does not count."""
        return self._script.round_trips

    @property
    def statements(self) -> list[str]:
        """The SQL that clients ran, in order; a prepared statement appears once per execution.

        A text of several statements appears as these.
        """
        return list(self._script.statements)

    def reset_counts(self) -> None:
        """Reset `round_trips` to 0 and empty `statements`."""
        self._script.round_trips = 0
        self._script.statements.clear()

    def refuse(
        self,
        times: int | None = 1,
        *,
        at: Literal["statement", "commit"] = "statement",
        sqlstate: str | None = "40001",
        message: str = _CONFLICT,
        matching: str = WRITES,
    ) -> None:
        """Answer an error, and keep the server from running the statement or the COMMIT.

        The transaction is then in the same state as after a real error: aborted,
        or rolled back after a COMMIT. With ``at="commit"`` this refuses the COMMIT
        of a transaction that ran a matching statement. With `sqlstate` None the
        error has no SQLSTATE.
        """
        error = error_response(sqlstate, message)
        reaction = refuse_commit(error) if at == "commit" else refuse(matching, error)
        self._script.add(Rule(matching, times, reaction, at_commit=at == "commit"))

    def cut(
        self, where: CutPoint, times: int | None = 1, *, matching: str = WRITES, reset: bool = False
    ) -> None:
        """Close the client's connection, with RST if `reset`.

        ``before``: the server never gets the batch. ``after_sent``: the server
        gets the batch, and the connection closes immediately. ``after_commit``: the
        server has answered in full, and the client sees nothing of the answer.
        ``mid_answer``: the client sees the first half of the answer.
        """
        self._script.add(Rule(matching, times, cut(where, reset=reset)))

    def hold(self, *, matching: str = WRITES) -> Held:
        """Hold back the next matching batch, to release or drop it later."""
        held = Held()
        self._script.add(Rule(matching, 1, held.react))
        return held

    def stall(self, times: int | None = 1, *, matching: str = WRITES) -> None:
        """Drop the batch, answer nothing, and leave the connection open."""
        self._script.add(Rule(matching, times, stall))

    def before(
        self, action: Callable[[], None], times: int | None = 1, *, matching: str = WRITES
    ) -> None:
        """Call `action` in a thread before the batch is forwarded or meets a fault.

        If it raises, the client's connection is closed, and leaving the proxy
        raises the error.
        """
        self._script.add_before(Rule(matching, times, before(action)))

    def heal(self) -> None:
        """Remove all faults, and accept connections again."""
        self._script.clear()
        self.refuse_connections(0)

    def _link(self, client: Streams, server: Streams) -> Link:
        return ClientSession(self, client, server, self._script)


class _Script:
    """The faults that are set, and the counts; used by the threads of the test and the proxy."""

    def __init__(self) -> None:
        self.round_trips = 0
        self.statements: list[str] = []
        self._actions: list[Rule] = []
        self._faults: list[Rule] = []
        self._lock = threading.Lock()

    def add(self, fault: Rule) -> None:
        with self._lock:
            self._faults += [] if fault.is_spent else [fault]

    def add_before(self, action: Rule) -> None:
        with self._lock:
            self._actions += [] if action.is_spent else [action]

    def clear(self) -> None:
        with self._lock:
            self._actions.clear()
            self._faults.clear()

    def note_statements(self, statements: Iterable[str]) -> None:
        self.statements.extend(statements)

    def note_round_trip(self) -> None:
        self.round_trips += 1

    def reactions(self, batch: Batch, transaction: Sequence[str]) -> list[Reaction]:
        """All matching actions, then the first matching fault, or `forward` without one."""
        with self._lock:
            actions = [rule for rule in self._actions if rule.applies(batch, transaction)]
            faults = [rule for rule in self._faults if rule.applies(batch, transaction)][:1]
            for rule in (*actions, *faults):
                rule.spend()
            self._actions = [rule for rule in self._actions if not rule.is_spent]
            self._faults = [rule for rule in self._faults if not rule.is_spent]
        last = faults[0].reaction if faults else forward
        return [*(rule.reaction for rule in actions), last]


class OutboxProxy(PostgresProxy):
    """A proxy in front of an outbox, as a context manager; its faults affect writes of events.

    `url` is the database's URL; the outbox tables are in `schema`. `conflicts`
    and `lost_commit` affect `write` and `write_many`. For other statements use
    `refuse`, `cut` and the other faults of `PostgresProxy`.
    """

    def __init__(self, url: str, *, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__(url)
        self.database: Final = Database(self.url, schema=schema, isolation="repeatable read")
        """The database, reached through the proxy."""
        self._write = f'INTO "{schema}".business_events'

    def conflicts(self, count: int) -> None:
        """Refuse the next `count` writes with a conflict as on Aurora DSQL: 40001, OC000."""
        self.refuse(count, matching=self._write)

    def lost_commit(self) -> None:
        """Let the next write commit, and close the connection before its answer arrives."""
        self.cut("after_commit", matching=self._write)
