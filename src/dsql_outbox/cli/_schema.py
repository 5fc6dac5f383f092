"""``dsql-outbox schema``: create, print or check the tables."""

import click
import msgspec

from dsql_outbox.outbox import DEFAULT_SHARDS
from dsql_outbox.schema import Drift, ddl
from dsql_outbox.schema import apply as apply_schema
from dsql_outbox.schema import check as check_schema

from ._database import database_options, open_bare_database, schema_option
from ._errors import FAILED, short_errors


@click.group()
def schema() -> None:
    """Create, print or check the tables."""


@schema.command()
@database_options
@click.option("--shards", type=int, help="How many shards there must be; they can only grow.")
@short_errors()
def apply(database: str | None, schema: str, shards: int | None) -> None:
    """Create the tables, or bring them up to this version.

    Safe to run again, and in several places at once.
    """
    with open_bare_database(database, schema) as found:
        done = apply_schema(found, shards=shards)
    for label in done.applied:
        click.echo(f"applied {label}")
    click.echo(
        f"schema {done.schema}: {done.migrations} migrations, {done.shards} shards, up to date"
    )


@schema.command("print")
@schema_option
@click.option("--shards", type=int, default=DEFAULT_SHARDS, show_default=True)
@short_errors()
def print_(schema: str, shards: int) -> None:
    """Print the SQL that `apply` runs on an empty database."""
    click.echo(ddl(schema, shards), nl=False)


@schema.command()
@database_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of kind, name, text.")
@short_errors()
def check(database: str | None, schema: str, as_json: bool) -> None:
    """Tell how the tables differ from what this version needs; exit code 1 if they do."""
    with open_bare_database(database, schema) as found:
        drifts = check_schema(found)
    click.echo(msgspec.json.encode(drifts) if as_json else _lines(schema, drifts))
    if drifts:
        raise click.exceptions.Exit(FAILED)


def _lines(schema: str, drifts: list[Drift]) -> str:
    return "\n".join(drift.text for drift in drifts) or f"schema {schema}: no difference"
