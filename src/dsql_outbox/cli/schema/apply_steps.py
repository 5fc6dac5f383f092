"""How far ``schema apply`` is, as text."""

from time import monotonic

from dsql_outbox.cli.output import counted, duration
from dsql_outbox.schema import ApplyStep


class ApplySteps:
    """Takes the steps of `apply`. As text it is the current step, and its duration so far."""

    def __init__(self) -> None:
        self._step: ApplyStep | None = None
        self._began = monotonic()
        self._count = 0

    def __call__(self, step: ApplyStep) -> None:
        """Take a step."""
        if self._step is None or self._step.label != step.label:
            self._began = monotonic()
            self._count += 1
        self._step = step

    def __str__(self) -> str:
        """The current migration."""
        if self._step is None:
            return "reading the tables"
        rows = f", about {self._step.rows:,} rows read" if self._step.rows else ""
        return f"applying {self._step.label} for {duration(monotonic() - self._began)}{rows}"

    def done(self) -> str:
        """How many migrations are complete."""
        return f"{counted(max(0, self._count - 1), 'migration')} applied"
