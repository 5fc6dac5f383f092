"""The database objects of the outbox: tables, statements, rights, and the rows that rooms share.

- `migrations/`, `statements/` and `grants/` hold the SQL, one file per table or view,
  statement and duty, and `fragments/` what several statements have in common. `named_statements`
  reads them, fills in the schema's name, and runs those that may run twice.
- `tables` parses the migrations, and reads the tables of a database.
- `migrator` creates the tables (``schema apply``), adds shards, prints the statements, and drops
  the tables.
- `alembic` is what a revision of Alembic calls.
- `comparison` compares a database with this version (``schema check``). `drift` is one difference,
  and `ownership` finds what belongs to another role.
- `roles` grants each database role the rights of its duty, and `right_drifts` finds wrong rights.
- `commands` are the commands that put a difference right, for error texts.
- `session` is one connection for the statements of the relay and of an operator's tools.
- `outbox_rows`, `target_rows` and `burial` are rows as publishers and operators both see them,
  `liveness` says which publishers are alive, `backlog` whether a message waits,
  and `oldest_look` from where to look for the oldest one.
- `operation` makes the row that tells what an operator does. `missing_rights`, `missing_tables` and
  `refused_topics` make errors and facts of the tables readable.

**One migration**, ``schema apply``:

1. `apply` reads which tables there are (`tables.read_shape`), and refuses the schema if one belongs
   to another role (`ownership.refuse_others`), or if a recorded migration had another text.
2. For each file of `migrations/` that is not recorded or whose table is missing, `apply` has
   `named_statements.execute` run its one statement, which may run twice, and then the one that adds
   its row to ``schema_migrations``. Each is a transaction of its own, as DSQL demands. After a
   crash between the two, the next run does the step again and records it.
3. No lock is taken. Two migrators at once do the same steps, and the database orders them. A
   conflict repeats the statement.
4. `_add_shards` adds the default target, and the rows of ``outbox_leases`` that are missing, unless
   only the tables of the inbox are made.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .migrator import apply

__all__ = [
    "apply",
]

if not TYPE_CHECKING:  # with __getattr__ in view, a checker would accept any name

    def __getattr__(name: str) -> object:
        """Load `apply` on first use (PEP 562): no writer and no relay changes tables."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .migrator import apply  # noqa: PLC0415

        return apply
