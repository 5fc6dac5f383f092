"""The operator's tool that archives old events."""

from datetime import datetime

from dsql_outbox.operations.tool import Operator
from dsql_outbox.outbox.archive.place import open_place

from .archive import ArchiveRun
from .old_events import require_zone


class Archives(Operator):
    """Archives of stored events.

    The constructor does no I/O. Use ``async with`` or call `close`. `archive` returns a run: await
    it, or iterate over it, to do its work. The run raises `JobRefused` while another job runs
    that changes stored events, or a target opens or fills, `ArchiveError` for a file, `SchemaError`
    if the tables are missing, and the driver's errors. What it had committed before stays, and
    another run goes on from there.
    """

    def archive(
        self,
        before: datetime,
        to: str,
        *,
        reason: str = "",
        rate: float | None = None,
        dry_run: bool = False,
    ) -> ArchiveRun:
        """Move the bytes of events that were saved before a time to files.

        `to` is a folder or ``s3://BUCKET/PREFIX``. Events that wait in the outbox, or are dead
        letters, stay as they are. `rate` is the limit in events per second. With None,
        the job leaves the database to the writers for most of the time, as `Pace` says. With
        `dry_run` nothing is changed.

        Raises `SettingsError` for a time without a zone, a rate that is not above 0, and a place
        that cannot be, and the run for a place of another outbox; `MissingExtra`.
        """
        require_zone(before)
        entry = self._entry("archive", reason)
        return ArchiveRun(self._session, open_place(to), before, entry, rate=rate, dry_run=dry_run)
