"""What `Verifier` finds in a database, as the end of a test or of a campaign."""

from contextlib import aclosing

from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Finding, Verifier


async def findings_in(url: str) -> list[Finding]:
    """All findings in the tables of a database."""
    async with Verifier(Database(url)) as tool, aclosing(tool.verify()) as run:
        return [finding async for finding in run]
