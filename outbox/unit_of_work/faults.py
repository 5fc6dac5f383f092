"""The faults that a test asks for, where a program sends what may be stored. No I/O.

`Gate` asks before each write and each COMMIT, and `on_connection` after its answer. Nothing in
the library sets `active`: the test kit does.
"""

from typing import Protocol


class Injected(Protocol):
    """What a test kit makes of the writes of this process."""

    def before_sending(self) -> None:
        """Raise the error that the server answers in place of the write or COMMIT."""
        ...

    def after_answer(self) -> None:
        """Raise the error of a connection that was lost before the answer came."""
        ...


active: Injected | None = None
