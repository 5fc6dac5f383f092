"""One run of ``read-model rebuild``: its progress, and its end after a signal."""

from contextlib import aclosing

from dsql_outbox.cli.output import counted, json_line, say
from dsql_outbox.cli.progress_line import progress
from dsql_outbox.cli.signals import Interruption
from dsql_outbox.publisher import Rebuild


class RebuildRun:
    """Runs a rebuild. If it ends early, prints where another run continues."""

    def __init__(self, tool: Rebuild, *, as_json: bool) -> None:
        self._tool = tool
        self._as_json = as_json
        self._is_done = False

    async def run(self, after: str | None) -> int:
        """Rebuild until the end or a signal. Returns the exit code that a signal asks for, or 0.

        Raises the errors of the rebuild.
        """
        interruption = Interruption(self._tool.stop)

        async def work() -> None:
            async with aclosing(self._tool.run(after=after)) as pages:
                async for _ in pages:
                    pass
            self._is_done = interruption.first is None

        async with self._tool:
            try:
                with progress(self._line):
                    await interruption.run(work)
            finally:
                if not self._is_done:
                    self._tell_place()
        if self._is_done:
            self._tell_done()
        return interruption.exit_code

    def _line(self) -> str:
        found = self._tool.progress
        of = "" if found.total is None else f" of about {found.total:,}"
        return f"{counted(found.applied, 'event')} applied, read {found.read:,}{of} rows"

    def _tell_place(self) -> None:
        found = self._tool.progress
        if found.place is not None:
            say(f"not done; to continue, run the same command with --after {found.place}", err=True)
        elif found.read:
            say("not done; empty the tables of the read model and start again", err=True)

    def _tell_done(self) -> None:
        done = self._tool.progress
        if self._as_json:
            json_line({"applied": done.applied, "read": done.read})
        else:
            say(f"rebuilt: {counted(done.applied, 'event')} applied; start the publishers")
