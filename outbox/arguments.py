"""Checks of arguments, at the calls that receive them.

Each error names the argument, the type that was given, and the expression to write.
It never quotes a value that may belong to an event.
"""

import math
from typing import Any, TypeVar

from dsql_outbox.observability.hooks import Hook

T = TypeVar("T")


def wrong_type(takes: str, given: object, instead: str) -> TypeError:
    """Return the error for an argument of a wrong type. `instead` is the expression to write."""
    return TypeError(f"{takes}, not {type(given).__name__}: {instead}")


def given_settings(call: str, settings: Any, kind: type[T]) -> T:
    """Return the settings, or for None the default ones. Raises `TypeError` for another class."""
    if settings is None:
        return kind()
    if isinstance(settings, kind):
        return settings
    fields = "**settings" if hasattr(settings, "keys") else ".."
    raise wrong_type(f"{call} takes {kind.__name__}", settings, f"{kind.__name__}({fields})")


def given_hooks(call: str, hooks: Any) -> tuple[Hook, ...]:
    """Return the hooks. Raises `TypeError` unless each is a function."""
    if not hasattr(hooks, "__iter__"):
        raise wrong_type(f"{call} takes a list of hooks", hooks, "hooks=[hook]")
    found: tuple[Hook, ...] = tuple(hooks)
    for n, hook in enumerate(found):
        if not callable(hook):
            raise wrong_type(
                f"hooks[{n}] of {call} must be a function that receives a fact",
                hook,
                "hooks=[print]",
            )
    return found


def require_seconds(name: str, seconds: object) -> None:
    """Raise `TypeError` or `ValueError` unless `seconds` is None, or finite and 0 or more."""
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise wrong_type(f"{name} takes seconds, or None for no limit", seconds, f"{name}=5.0")
    if not (is_finite(seconds) and seconds >= 0):
        raise ValueError(
            f"{name} must be a finite number of seconds, 0 or more, or None for no limit; "
            f"got {quoted(seconds)}"
        )


def is_finite(number: float) -> bool:
    """Return whether a number is finite as a float, which an int of 400 digits is not."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def quoted(number: float) -> str:
    """Return a number for an error text, and the size of an int that no float can hold."""
    if isinstance(number, int) and not is_finite(number):
        return f"an int of {number.bit_length()} bits"
    return str(number)
