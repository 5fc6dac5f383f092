"""The statements of a batch one by one, and what the server answered to each."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from tests.support.proxy import wire_protocol as wire
from tests.support.proxy.client_session import Batch
from tests.support.proxy.wire_protocol import WireMessage

from .cluster_rules import CONFLICT, MEMORY, Violation, kind_of

SYNC: Final = WireMessage(wire.SYNC, b"")
_ENDS: Final = {wire.SYNC, wire.FLUSH}
_HAVE_SQL: Final = {wire.PARSE, wire.QUERY}
_NOTICE: Final = b"N"
_EXISTS: Final = {"42P06", "42P07", "42701"}  # a schema, a relation, a column
_RESULTS: Final = {wire.DESCRIBE_OR_ROW, wire.CLOSE_OR_COMPLETE}  # DataRow, CommandComplete
_BOUNDS: Final = {"begin", "commit", "rollback"}
_NOT_SQL: Final = "refused_by_the_rules"


class Step(NamedTuple):
    """The messages of one statement, without the Sync, and its SQL; empty if it runs none."""

    messages: Sequence[WireMessage]
    sql: str

    @property
    def request(self) -> Batch:
        """What to send, so that the server answers at once."""
        return Batch(
            self.messages if self.messages[-1].kind == wire.QUERY else [*self.messages, SYNC]
        )

    @property
    def refused(self) -> "Step":
        """The same step, made unacceptable where it would run; what it prepares is prepared."""
        return self._with_first({wire.BIND: wire.parse(_NOT_SQL), wire.QUERY: wire.query(_NOT_SQL)})

    @property
    def again(self) -> "Step":
        """The same step for a session that prepared its statements before.

        libpq overlooks that a Close is answered that it did not send.
        """
        messages: list[WireMessage] = []
        for message in self.messages:
            if message.kind == wire.PARSE and (name := wire.parsed_statement(message)[0]):
                messages.append(WireMessage(wire.CLOSE_OR_COMPLETE, b"S" + name.encode() + b"\0"))
            messages.append(message)
        return Step(messages, self.sql)

    def replacing(self, old: str, new: str) -> "Step":
        """The same step with another text in the SQL that it prepares or runs."""
        before, after = old.encode(), new.encode()
        if not any(before in m.body for m in self.messages if m.kind in _HAVE_SQL):
            return self
        messages = [
            m._replace(body=m.body.replace(before, after)) if m.kind in _HAVE_SQL else m
            for m in self.messages
        ]
        return Step(messages, self.sql)

    def _with_first(self, others: dict[bytes, WireMessage]) -> "Step":
        messages = list(self.messages)
        for place, message in enumerate(messages):
            if message.kind in others:
                messages[place] = others[message.kind]
                break
        return Step(messages, self.sql)


def steps(batch: Batch) -> Iterator[Step]:
    """The batch in pieces that run one statement each.

    A Query of several statements is one piece, unless it begins or ends a transaction.
    """
    sql = dict(batch.statements)
    piece: list[WireMessage] = []
    running = ""
    for place, message in enumerate(batch.messages):
        if message.kind in _ENDS:
            continue
        texts = [text for at, text in batch.statements if at == place]
        if message.kind == wire.QUERY and any(kind_of(text) in _BOUNDS for text in texts):
            yield from (Step([wire.query(text)], text) for text in texts)
            continue
        piece.append(message)
        running = sql.get(place, running)
        if message.kind in {wire.EXECUTE_OR_ERROR, wire.QUERY}:
            yield Step(piece, running)
            piece, running = [], ""
    if piece:
        yield Step(piece, running)


@dataclass(slots=True)
class Answer:
    """The server's messages but for ReadyForQuery, and the state that the latter told."""

    messages: list[WireMessage]
    state: bytes

    @property
    def violation(self) -> Violation | None:
        """Its error, if it has one."""
        errors = [m for m in self.messages if m.kind == wire.EXECUTE_OR_ERROR]
        found = [Violation(_field(m, b"C") or "", _field(m, b"M") or "") for m in errors]
        return found[0] if found else None

    @property
    def sqlstate(self) -> str | None:
        """That of its error, if it has one."""
        return self.violation and self.violation.sqlstate

    @property
    def says_there_already(self) -> bool:
        """Whether it is a notice that what was to be made exists, as IF NOT EXISTS ends in."""
        return any(_field(m, b"C") in _EXISTS for m in self.messages if m.kind == _NOTICE)

    @property
    def texts(self) -> list[str]:
        """The first column of each row."""
        rows = [m.body for m in self.messages if m.kind == wire.DESCRIBE_OR_ROW]
        return [row[6 : 6 + int.from_bytes(row[2:6])].decode() for row in rows]

    @property
    def in_dsqls_words(self) -> list[WireMessage]:
        """The messages, with a conflict, or a query over its memory, as DSQL tells it."""
        violation = _IN_DSQLS_WORDS.get(self.sqlstate or "")
        if violation is None:
            return self.messages
        error = wire.error_response(*violation)
        return [error if m.kind == b"E" else m for m in self.messages]

    def failing(self, violation: Violation) -> list[WireMessage]:
        """The messages, with an error in place of what came of the statement."""
        error = wire.error_response(*violation)
        kept = [m for m in self.messages if m.kind not in {*_RESULTS, b"E"}]
        return [*kept, error]


_IN_DSQLS_WORDS: Final = {
    CONFLICT.sqlstate: CONFLICT,
    "53400": MEMORY,  # PostgreSQL's temp_file_limit, which the server of the endpoint has
}


def _field(error: WireMessage, name: bytes) -> str | None:
    found = re.search(rb"(?:^|\0)" + name + rb"([^\0]*)\0", error.body)
    return found.group(1).decode() if found else None
