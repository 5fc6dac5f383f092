"""A limit for equal log lines."""

from time import monotonic
from typing import Final

_PAUSE: Final = 60.0  # seconds from one line to the next


class LogLimit:
    """Lets one log line pass per minute."""

    def __init__(self) -> None:
        self._next = 0.0

    def passes(self) -> bool:
        """Whether the line may be written now; if so, the next one must wait."""
        now = monotonic()
        if now < self._next:
            return False
        self._next = now + _PAUSE
        return True
