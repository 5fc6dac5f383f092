"""What `Verifier` finds in a database, as the end of a test or of a campaign."""

from contextlib import aclosing

from dsql_outbox.operations import Verifier
from dsql_outbox.operations.verification.finding import Finding
from dsql_outbox.outbox import Database


async def findings_in(database: Database | str) -> list[Finding]:
    """All findings in the tables of a database."""
    known = Database(database) if isinstance(database, str) else database
    async with Verifier(known) as tool, aclosing(tool.verify()) as run:
        return [finding async for finding in run]
