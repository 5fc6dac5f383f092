"""One run of ``messages replay``: it shows its progress, and ends in order after a signal."""

from dsql_outbox.cli.output import of_about, say
from dsql_outbox.cli.progress_line import progress
from dsql_outbox.cli.signals import Interruption
from dsql_outbox.publisher import Replay

from .handled_report import HandledReport


class ReplayRun:
    """Runs a replay. If it ends early, prints where another run continues."""

    def __init__(self, replay: Replay, report: HandledReport) -> None:
        self._replay = replay
        self._report = report
        self._is_done = False

    async def run(self) -> int:
        """Replay until the end or a signal. Returns the exit code that a signal asks for, or 0.

        Raises the errors of the replay.
        """
        interruption = Interruption(self._replay.stop)

        async def work() -> None:
            await self._report.all(self._replay)
            self._is_done = interruption.first is None

        try:
            with progress(self._line):
                await interruption.run(work)
        finally:
            if not self._is_done:
                self._tell_place()
        return interruption.exit_code

    def _tell_place(self) -> None:
        place = self._replay.progress.place
        if place is not None:
            say(f"not done; to continue, run the same command with --after {place}", err=True)

    def _line(self) -> str:
        found = self._replay.progress
        parts = [str(self._report)]
        if found.read:
            of = of_about(found.read, found.total)
            parts.append(f"read {found.read:,}{of} rows")
        if found.place is not None:
            parts.append(f"at {found.place}")
        return ", ".join(parts)
