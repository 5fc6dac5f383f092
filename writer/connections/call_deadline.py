"""The deadline of a call, for its wait for a connection."""

from time import monotonic
from typing import Final

import psycopg

TOO_LATE: Final = "no connection before the deadline of the call"


def require_time(deadline: float | None) -> None:
    """Raise `OperationalError` after the deadline: the outcome of a write would be in doubt."""
    if deadline is not None and monotonic() >= deadline:
        raise psycopg.OperationalError(TOO_LATE)


def seconds_left(deadline: float | None) -> float | None:
    """Return the seconds until the deadline, at least a millisecond, or None without one."""
    return None if deadline is None else max(0.001, deadline - monotonic())


def none_in_time(limit: int, openings: int) -> psycopg.OperationalError:
    """Return the error for a call that got no connection in time."""
    if openings:
        return psycopg.OperationalError(
            f"{TOO_LATE}: {openings} of at most {limit} connections of the writer "
            "(max_connections) are being opened, and a later call gets them"
        )
    return psycopg.OperationalError(
        f"all {limit} connections of the writer are in use (max_connections)"
    )
