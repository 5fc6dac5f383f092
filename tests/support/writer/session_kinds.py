"""Classes of sessions whose `commit` hides its error, as some programs have them."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session


class Swallowing(Session):
    """A session whose class makes a rollback of a COMMIT that failed."""

    def commit(self) -> None:
        try:
            super().commit()
        except Exception:  # noqa: BLE001 - as such classes do it
            self.rollback()


class TryingAgain(Session):
    """A session whose class rolls back, and commits again what is left."""

    def commit(self) -> None:
        try:
            super().commit()
        except Exception:  # noqa: BLE001 - as above
            self.rollback()
            self.execute(text("SELECT 1"))
            super().commit()


KINDS: Final[Sequence[type[Session]]] = [Swallowing, TryingAgain]
