"""The tables, the statements on them, and what brings them into a database."""

from ._check import check
from ._drift import Drift, DriftKind
from ._migrate import Applied, apply, ddl
from ._statements import statement

__all__ = ["Applied", "Drift", "DriftKind", "apply", "check", "ddl", "statement"]
