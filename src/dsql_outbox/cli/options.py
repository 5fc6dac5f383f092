"""Options of programs that are deployed, and those that all commands share.

Each is also read from the environment. An option that says what one call does is none of these.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])


def option(flag: str, *more: str, **attributes: Any) -> Callable[[Command], Command]:
    """An option that is also read from ``DSQL_OUTBOX_<FLAG>``, unless `envvar` is given.

    Its help shows that variable and the default.
    """
    variable = f"DSQL_OUTBOX_{flag.removeprefix('--').replace('-', '_').upper()}"
    shown: dict[str, Any] = {"envvar": variable, "show_default": True, **attributes}
    return click.option(flag, *more, show_envvar=True, **shown)


class _Times(click.IntRange):
    """How often a flag is given; in the environment also a word that other flags take."""

    _WORDS: Final = {"true": 1, "yes": 1, "on": 1, "false": 0, "no": 0, "off": 0}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        word = str(value).strip().lower()
        return self._WORDS[word] if word in self._WORDS else super().convert(value, param, ctx)


def log_options(command: Command) -> Command:
    """Add the options --log-format and --verbose, parameters `log_format` and `verbose`."""
    verbose = option(
        *("--verbose", "-v"),
        count=True,
        type=_Times(min=0),
        show_default=False,
        help="Log normal events, too; twice: each step of the relay.",
    )
    log_format = option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="Log as text, or as JSON with stable keys, one object per line.",
    )
    return log_format(verbose(command))
