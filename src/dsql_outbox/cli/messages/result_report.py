"""The report of the commands that retry or replay messages."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from dsql_outbox.cli.job import drive
from dsql_outbox.cli.output import counted, json_line, say
from dsql_outbox.operations.requeue import MessageResult, RequeueProgress
from dsql_outbox.operations.run import Run

from .replay_summary import ReplaySummary

if TYPE_CHECKING:
    from uuid import UUID

P = TypeVar("P", bound=RequeueProgress)

_LEFT_ALONE: Final = {
    "waiting": "they wait in the outbox",
    "missing": "they are not stored",
    "unreadable": "their headers are not valid for a message; replay these events by their ids",
    "untaken": "the target does not take the types of their subjects",
}


class ResultReport:
    """Prints the results, a line per message if `listed`.

    A dry run that is not `listed` has a summary. `ids` are those of all results.
    """

    def __init__(
        self, done: Literal["retried", "replayed"], *, as_json: bool, listed: bool, dry_run: bool
    ) -> None:
        self._done = done
        self._as_json = as_json
        self._listed = listed
        self._is_dry = dry_run
        self._summary = ReplaySummary() if dry_run and not listed else None
        self.ids: set[UUID] = set()

    async def drive(self, run: Run[P, MessageResult], line: Callable[[], str]) -> P:
        """Do the work of a run, as `job.drive`. Returns its progress."""
        try:
            await drive(
                run,
                line,
                as_json=self._as_json,
                tell=self._tell,
                counts=lambda: self._counts(run.progress),
                err=True,
            )
        finally:
            if self._summary is not None and not self._as_json:
                self._summary.print()
        return run.progress

    def line(self, done: RequeueProgress) -> str:
        """The totals so far."""
        if self._is_dry:
            parts = [f"{counted(done.planned, 'message')} would be {self._done}"]
        else:
            parts = [f"{getattr(done, self._done):,} {self._done}"]
        for status, why in _LEFT_ALONE.items():
            if count := getattr(done, status):
                parts.append(f"{count:,} left alone: {why}")
        return "; ".join(parts)

    def _counts(self, done: RequeueProgress) -> object:
        if self._summary is None:
            return done
        return self._summary.counts({status: getattr(done, status) for status in _LEFT_ALONE})

    def _tell(self, each: MessageResult) -> None:
        self.ids.add(each.event_id)
        if self._listed:
            self._print(each)
        if self._summary is not None and each.status == "planned":
            self._summary.add(each)

    def _print(self, each: MessageResult) -> None:
        if self._as_json:
            json_line(each)
            return
        verb = "retry" if each.replay is None else f"replay {each.replay}"
        words = {self._done: verb, "planned": f"would be {verb}"}
        say(f"{each.event_id}  {words.get(each.status, each.status)}  {each.subject or '-'}")
