"""The database objects of the outbox: tables, statements, rights, and the code that applies them.

- `migrations/`, `statements/` and `grants/` hold the SQL, one file per table or view,
  statement and duty. `named_statements` reads it and fills in the schema's name.
- `tables` parses the migrations, and reads the tables of a database.
- `migrator` creates the tables (``schema apply``), prints them, and drops them.
- `comparison` compares a database with this version (``schema check``).
- `operation` makes the row that tells what an operator does.
- `roles` grants each database role the rights of its duty, and finds wrong rights.
"""

from .commands import apply_command, grant_command
from .comparison import check
from .drift import Drift
from .migrator import apply, ddl, remove
from .named_statements import guards, statement
from .operation import Verb, operation
from .roles import DUTIES, Duty, Granted, Roles, grant, grants, is_dsql, lacking_rights

__all__ = [
    "DUTIES",
    "Drift",
    "Duty",
    "Granted",
    "Roles",
    "Verb",
    "apply",
    "apply_command",
    "check",
    "ddl",
    "grant",
    "grant_command",
    "grants",
    "guards",
    "is_dsql",
    "lacking_rights",
    "operation",
    "remove",
    "statement",
]
