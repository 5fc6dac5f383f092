"""The operator's tool for archives: archive old events, and forget archived ones."""

from collections.abc import Iterable
from datetime import datetime

from dsql_outbox.operations.tool import Operator
from dsql_outbox.outbox.archive.place import open_place
from dsql_outbox.outbox.errors import SettingsError

from .archive import ArchiveRun
from .forget import ForgetRun


class Archives(Operator):
    """Archives of stored events.

    The constructor does no I/O. Use ``async with`` or call `close`. Both methods return a run:
    await it, or iterate over it, to do its work. A run raises `JobRefused` while another job runs
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
        letters, stay as they are. `rate` is the limit in events per second. With None, the
        job rests after each file for half as long as that file took.
        With `dry_run` nothing is changed.

        Raises `SettingsError` for a time without a zone, a rate that is not above 0, and a place
        that cannot be, and the run for a place of another outbox; `MissingExtra`.
        """
        _require_zone(before)
        entry = self._entry("archive", reason)
        return ArchiveRun(self._session, open_place(to), before, entry, rate=rate, dry_run=dry_run)

    def forget(
        self,
        before: datetime,
        archive: str | Iterable[str],
        *,
        reason: str = "",
        rate: float | None = None,
        dry_run: bool = False,
    ) -> ForgetRun:
        """Remove archived events that were saved before a time, for good.

        Their rows and their lines in the files of `archive`, one place or several, are deleted.
        Then a repeat of such a write is a new event, a stream begins with the first version that
        is left, and neither a replay nor a new target gets them. Events that a waiting message or
        a dead letter names stay. `rate` is the limit in events per second (None is no limit).

        Raises `SettingsError` as `archive` does.
        """
        _require_zone(before)
        names = [archive] if isinstance(archive, str) else [*archive]
        if not names:
            raise SettingsError("name the archives whose events are forgotten")
        entry = self._entry("archive forget", reason)
        places = [open_place(name) for name in names]
        return ForgetRun(self._session, places, before, entry, rate=rate, dry_run=dry_run)


def _require_zone(before: datetime) -> None:
    if before.tzinfo is None:
        raise SettingsError(f"the time {before} has no time zone")
