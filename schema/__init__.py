"""The tables, the statements on them, and what brings them into a database."""

from ._check import check
from ._drift import Drift, DriftKind
from ._grant import Granted, grant
from ._migrate import Applied, apply, ddl
from ._plan import Step, plan
from ._remedies import Remedies
from ._rights import Duty, Roles, lacking_rights
from ._statements import statement

__all__ = [
    "Applied",
    "Drift",
    "DriftKind",
    "Duty",
    "Granted",
    "Remedies",
    "Roles",
    "Step",
    "apply",
    "check",
    "ddl",
    "grant",
    "lacking_rights",
    "plan",
    "statement",
]
