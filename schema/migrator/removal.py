"""Remove the tables of a schema, and the schema."""

from psycopg import sql

from dsql_outbox.outbox import Database
from dsql_outbox.schema.named_statements import compose, statement

from .execution import execute
from .shape import read_shape


def remove(database: Database) -> None:
    """Drop every table and view of the schema, one statement each, and then the schema.

    All data in them is lost. A missing schema is not an error, so `remove` may run twice. An
    object that is neither a table nor a view stays, and makes the last statement fail. Raises
    the driver's errors.
    """
    with database.connect() as connection:
        shape = read_shape(connection, database.schema) or {}
        for relation in sorted(shape.values(), key=lambda found: not found.view):
            drop = "view_drop" if relation.view else "table_drop"
            name = sql.Identifier(relation.name)
            execute(connection, compose(drop, database.schema, relation=name))
        execute(connection, statement("schema_drop", database.schema))
