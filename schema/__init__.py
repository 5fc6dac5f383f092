"""The database objects of the outbox: tables, statements, rights, and the rows that rooms share.

- `migrations/`, `statements/` and `grants/` hold the SQL, one file per table or view,
  statement and duty, and `fragments/` what several statements have in common: which messages name
  an event, and whether one may be sent. `named_statements` reads it and fills in the schema's name.
- `tables` parses the migrations, and reads the tables of a database.
- `migrator` creates the tables (``schema apply``), prints them, and drops them.
- `alembic` is what a revision of Alembic calls.
- `comparison` compares a database with this version (``schema check``). `drift` is one difference,
  and `ownership` finds what belongs to another role.
- `roles` grants each database role the rights of its duty, and finds wrong rights.
- `commands` are the commands that put a difference right, for error texts.
- `session` is one connection for the statements of the relay and of an operator's tools.
- `outbox_rows`, `target_rows` and `burial` are rows as publishers and operators both see them,
  `liveness` says which publishers are alive, `backlog` whether a message waits,
  and `oldest_look` from where to look for the oldest one.
- `operation` makes the row that tells what an operator does.
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
