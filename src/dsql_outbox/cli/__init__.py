"""The command line."""

from importlib.util import find_spec

if find_spec("click") is None or find_spec("rich") is None:
    from dsql_outbox.outbox import MissingExtra

    raise MissingExtra("cli", "the command dsql-outbox")

from .main import main

__all__ = ["main"]
