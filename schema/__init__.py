"""The tables, the statements on them, and what brings them into a database."""

from dsql_outbox.schema.drift.drift import Drift, DriftKind
from dsql_outbox.schema.drift.inspection import check
from dsql_outbox.schema.drift.remedies import Remedies
from dsql_outbox.schema.migrator.migrator import Applied, apply, ddl
from dsql_outbox.schema.migrator.plan import PlannedStep, plan
from dsql_outbox.schema.roles.grant import Granted, grant
from dsql_outbox.schema.roles.rights import Duty, Roles, lacking_rights

from .named_statements import statement

__all__ = [
    "Applied",
    "Drift",
    "DriftKind",
    "Duty",
    "Granted",
    "PlannedStep",
    "Remedies",
    "Roles",
    "apply",
    "check",
    "ddl",
    "grant",
    "lacking_rights",
    "plan",
    "statement",
]
