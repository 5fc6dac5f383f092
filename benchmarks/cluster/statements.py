"""The report's own statements: ``statements/<name>.sql``, which no installed command sends."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, LiteralString, cast

from dsql_outbox.cli.doctor.examined_database import bare
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.schema.named_statements import render

REPORT_STATEMENTS: Final = {
    path.stem: cast("LiteralString", path.read_text(encoding="utf-8"))  # type: ignore[redundant-cast]  # mypy has no LiteralString
    for path in sorted(Path(__file__).with_name("statements").glob("*.sql"))
}


def query(name: str, schema: str, /, **literals: int | str) -> bytes:
    """Return a statement for the tables of a schema, ready to run."""
    return bare(render(REPORT_STATEMENTS[name], schema, **literals))


def ask(
    connection: Connection,
    schema: str,
    name: str,
    parameters: Mapping[str, object] | None = None,
    /,
    **literals: int | str,
) -> Sequence[Sequence[Any]]:
    """Run a statement, and return its rows. Raises the driver's errors."""
    cursor = connection.execute(query(name, schema, **literals), parameters)
    return cursor.fetchall() if cursor.description else []
