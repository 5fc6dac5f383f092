"""Durations as text for people."""

from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_LONGEST: Final = 10_000 * 365 * _DAY


def duration(seconds: float) -> str:
    """Seconds as text, in the two largest units, such as ``2 h 5 min``; nothing below 0."""
    if seconds < _MINUTE:
        return f"{max(seconds, 0.0):.1f} s"
    if not seconds <= _LONGEST:  # infinity and NaN too: a row may hold any time
        return "over 10,000 years"
    whole = int(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
