"""What a writer needs to know and its user does not set: the waits, the form, the idle time."""

import os
from dataclasses import dataclass, field, fields
from typing import Final, Literal, Self

from .settings import WriterSettings

_FROZEN: Final = 30.0
"""Seconds. AWS Lambda freezes a process between two calls, and the network forgets a connection
of a frozen process without telling it."""


@dataclass(frozen=True, kw_only=True)
class TunedSettings(WriterSettings):
    """The settings of a writer, and its constants.

    The constants are fields, so that tests are quick, and benchmarks compare other waits.
    """

    base: float = 0.1
    """Seconds of the wait after a first failure: about an attempt of a call that conflicts."""

    cap: float = 2.0
    """The longest wait in seconds, `jitter` included: how late a call may notice that an outage
    is over."""

    jitter: float | None = None
    """The random share of up to this that is added to each wait. None: 1, so that the losers of a
    conflict do not retry in lockstep, and 0 without a `timeout`, as `WriterSettings` says."""

    form: Literal["auto", "single", "plain"] = "auto"
    """``single`` writes with one statement. ``plain`` writes with one transaction of statements
    without data-modifying CTEs, sent together. ``auto`` asks the database at the writer's first
    use whether it supports the single form."""

    max_idle: float | None = field(
        default_factory=lambda: _FROZEN if "AWS_LAMBDA_FUNCTION_NAME" in os.environ else None
    )
    """Seconds after which an idle connection is replaced before use, which does not count as an
    attempt. None: no limit. 0: each connection is closed after its use."""

    @classmethod
    def of(cls, settings: WriterSettings) -> Self:
        """Return the settings with the constants, unless they have them already."""
        if isinstance(settings, cls):
            return settings
        return cls(**{each.name: getattr(settings, each.name) for each in fields(WriterSettings)})

    @property
    def random_share(self) -> float:
        """`jitter`, or the share that follows from `timeout`."""
        if self.jitter is not None:
            return self.jitter
        return 0.0 if self.timeout is None else 1.0
