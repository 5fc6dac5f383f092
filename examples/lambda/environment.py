"""The settings that both functions read from their environment."""

import logging
import os

from dsql_outbox import Database, SettingsError
from dsql_outbox.observability import JsonFormatter


def setting(name: str, what: str) -> str:
    """A variable of the environment that must be set."""
    if value := os.environ.get(name):
        return value
    raise SettingsError(f"set {name} to {what}")


def database() -> Database:
    """The database that holds the outbox."""
    url = setting("DSQL_OUTBOX_DATABASE", "the URL of the database")
    return Database(url, schema=os.environ.get("DSQL_OUTBOX_SCHEMA", "outbox"))


def set_up_logs() -> None:
    """Let Lambda write lines of JSON, which examples/cloudwatch counts."""
    if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
        for each in logging.getLogger().handlers:
            each.setFormatter(JsonFormatter())
