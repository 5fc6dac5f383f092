"""Time that passes when it is told to."""


class Clock:
    """Tells the seconds in `now`."""

    now = 0.0

    def __call__(self) -> float:
        return self.now
