"""The functions of the user that a command line names: of a read model, and the map."""

import inspect
import os
import sys
from importlib import import_module
from operator import attrgetter
from traceback import walk_tb
from typing import Any

import click

from dsql_outbox.publisher.message_map import MessageMap, require_map
from dsql_outbox.publisher.relay.applier import Apply


def applied_function(name: str) -> Apply:
    """Import the function of a read model.

    Raises `click.UsageError` if it is not there, or not async.
    """
    function: Apply = _imported("--apply", name, "shop.balances:apply")
    if not inspect.iscoroutinefunction(function):
        raise click.UsageError(f"--apply {name} must be an async function of (connection, message)")
    return function


def named_map(name: str) -> MessageMap:
    """Import a map. Raises `click.UsageError` if it is not there, or cannot be a map."""
    function: MessageMap = _imported("--map", name, "shop.contracts:to_message")
    try:
        require_map("publish", function)
    except TypeError as error:
        raise click.UsageError(f"--map {name}: {error}") from error
    return function


def _imported(option: str, name: str, example: str) -> Any:
    """What ``MODULE:NAME`` names. An error of the module names its place, and quotes no value."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise click.UsageError(f"{option} {name!r} is not MODULE:FUNCTION, such as {example}")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as `python -m` does
    try:
        return attrgetter(attribute)(import_module(module))
    except (ImportError, AttributeError) as error:
        raise click.UsageError(f"{option} {name}: {error}") from error
    except Exception as error:
        place = _place_in(module, error)
        raise click.UsageError(
            f"{option} {name}: the module raised {type(error).__name__} at {place}"
        ) from error


def _place_in(module: str, error: Exception) -> str:
    """The innermost line of the module's package that an error came through: ``FILE:LINE``.

    The library that raised it, such as `os.environ`, would not tell the user what to mend.
    """
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    package = module.partition(".")[0]
    places = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] == package
    ]
    return places[-1] if places else "its import"
