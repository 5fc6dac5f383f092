"""The function of a read model that a command line names."""

import inspect
import os
import sys
from importlib import import_module

import click

from dsql_outbox.publisher.relay.applier import Apply


def applied_function(name: str) -> Apply:
    """Import the function. Raises `click.UsageError` if it is not there, or not async."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise click.UsageError(
            f"--apply {name!r} is not MODULE:FUNCTION, such as shop.balances:apply"
        )
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as `python -m` does
    try:
        function: Apply = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise click.UsageError(f"--apply {name}: {error}") from error
    if not inspect.iscoroutinefunction(function):
        raise click.UsageError(f"--apply {name} must be an async function of (connection, message)")
    return function
