"""The operator's tool that forgets old events."""

from datetime import datetime, timedelta

from dsql_outbox.operations.tool import Operator
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.settings import require_positive

from .forget import ForgetRun
from .keep import KeepRun
from .old_events import require_zone


class Retention(Operator):
    """How long events are stored: older ones are forgotten.

    The constructor does no I/O. Use ``async with`` or call `close`. `forget` returns a run: await
    it, or iterate over it, to do its work. `keep` returns one that begins anew again and again. A
    run of `forget` raises `JobRefused` while another job runs
    that changes stored events, or a target opens or fills, `SchemaError` if the tables are
    missing, and the driver's errors. What it had committed before stays, and another run goes on
    from there.
    """

    def forget(
        self,
        before: datetime,
        *,
        reason: str = "",
        rate: float | None = None,
        dry_run: bool = False,
    ) -> ForgetRun:
        """Remove all events that were saved before a time, for good.

        Their rows are deleted. Then a repeat of such a write is a new event, a stream begins with
        the first version that is left, and neither a replay nor a new target gets them. The current
        state of each entity stays. Events that a waiting message or a dead letter names stay, too.
        `rate` is the limit in events per second. With None, the job leaves the database to the
        writers for most of the time, as `Pace` says. With `dry_run` nothing is changed.

        Raises `SettingsError` for a time without a zone, and a rate that is not above 0.
        """
        require_zone(before)
        entry = self._entry("forget", reason)
        return ForgetRun(self._session, before, entry, rate=rate, dry_run=dry_run)

    def keep(
        self, age: timedelta, every: timedelta, *, reason: str = "", rate: float | None = None
    ) -> KeepRun:
        """Remove all events that were saved longer ago than `age`, for good, again and again.

        A pass does what `forget` does, and the next one begins `every` so long after its end. The
        run yields a `Pass` after each, and ends after `stop`. A pass that cannot reach the
        database, or meets another job, says so, and the next one begins after a minute at the
        latest. `reason` is recorded once, with the first event that is forgotten.

        Raises `SettingsError` for an age below 0, a pause or a rate that is not above 0.
        """
        if age < timedelta(0):
            raise SettingsError(f"the age must be 0 or more, got {age}")
        require_positive("Retention.keep", {"every": every.total_seconds()})
        return KeepRun(self._session, age, every, self._entry("forget", reason), rate=rate)
