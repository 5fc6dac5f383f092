"""The commands that correct a schema, ready to paste into a shell."""

from collections.abc import Mapping
from shlex import quote

from dsql_outbox.outbox.database.database import DEFAULT_SCHEMA


def apply_command(schema: str, shards: int | None = None, *, inbox: bool = False) -> str:
    """Create what is missing, and shards up to the number `shards`; with `inbox`, its tables."""
    only, number = " --inbox" if inbox else "", f" --shards {shards}" if shards else ""
    return f"dsql-outbox schema apply{only}{_option(schema)}{number}"


def drop_command(schema: str) -> str:
    """Drop the tables, with all that they hold."""
    return f"dsql-outbox schema drop{_option(schema)}"


def grant_command(schema: str, roles: Mapping[str, str]) -> str:
    """Grant the rights of duties; `roles` maps a duty to its role."""
    named = "".join(f" --{duty} {quote(role)}" for duty, role in roles.items())
    return f"dsql-outbox schema grant{_option(schema)}{named}"


def _option(schema: str) -> str:
    return "" if schema == DEFAULT_SCHEMA else f" --schema {schema}"
