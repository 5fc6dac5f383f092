"""The operator's tool that forgets old events."""

from collections.abc import Iterable
from datetime import datetime

from dsql_outbox.operations.tool import Operator
from dsql_outbox.outbox.archive.place import open_place

from .forget import ForgetRun
from .old_events import require_zone


class Retention(Operator):
    """How long events are stored: older ones are forgotten, with or without an archive.

    The constructor does no I/O. Use ``async with`` or call `close`. `forget` returns a run: await
    it, or iterate over it, to do its work. The run raises `JobRefused` while another job runs
    that changes stored events, or a target opens or fills, `SettingsError` if events are archived
    in a place and none is named, `ArchiveError` for a file, `SchemaError` if the tables are
    missing, and the driver's errors. What it had committed before stays, and another run goes on
    from there.
    """

    def forget(
        self,
        before: datetime,
        *,
        archive: str | Iterable[str] = (),
        reason: str = "",
        rate: float | None = None,
        dry_run: bool = False,
    ) -> ForgetRun:
        """Remove all events that were saved before a time, for good.

        Their rows are deleted, and if some are archived, their lines in the files of `archive`, one
        place or several. Then a repeat of such a write is a new event, a stream begins with the
        first version that is left, and neither a replay nor a new target gets them. The current
        state of each entity stays. Events that a waiting message or a dead letter names stay, too.
        `rate` is the limit in events per second. With None, the job leaves the database to the
        writers for most of the time, as `Pace` says. With `dry_run` nothing is changed.

        Raises `SettingsError` for a time without a zone, a rate that is not above 0, and a place
        that cannot be; `MissingExtra`.
        """
        require_zone(before)
        entry = self._entry("forget", reason)
        places = [open_place(name) for name in ([archive] if isinstance(archive, str) else archive)]
        return ForgetRun(self._session, places, before, entry, rate=rate, dry_run=dry_run)
