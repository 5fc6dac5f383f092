"""The database objects of the outbox: tables, statements, rights, and the code that applies them.

- `migrations/`, `statements/` and `grants/` hold the SQL, one file per migration,
  statement and duty. `named_statements` reads it and fills in the schema's name.
- `migrator/` creates or upgrades the tables (``schema apply``, ``schema plan``), and removes them.
- `drift` compares a database with this version (``schema check``) and names the
  command that repairs each difference.
- `roles` grants each database role the rights of its duty, and finds wrong rights.
"""

from dsql_outbox.schema.drift import check
from dsql_outbox.schema.drift_kind import Drift, DriftKind
from dsql_outbox.schema.migrator.index_build import has_jobs
from dsql_outbox.schema.migrator.migrator import (
    Applied,
    ApplyStep,
    PlannedStep,
    apply,
    ddl,
    plan,
    remove,
)
from dsql_outbox.schema.migrator.remedies import Remedies
from dsql_outbox.schema.roles import DUTIES, Duty, Granted, Roles, grant, grants, lacking_rights

from .named_statements import statement

__all__ = [
    "DUTIES",
    "Applied",
    "ApplyStep",
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
    "grants",
    "has_jobs",
    "lacking_rights",
    "plan",
    "remove",
    "statement",
]
