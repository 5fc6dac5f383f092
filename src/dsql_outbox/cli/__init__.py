"""The command `dsql-outbox`: one folder or module per subcommand, and shared parts.

`main` is the table of subcommands. `database_options` opens the database of a
command, and `tool_call` the operator's tool of one: an option that has the name of a method's
argument is written down once. `job` drives a run: progress, signals, counts. `exit_codes` turns
errors into one line and an exit code. `options`, `filters`, `output` and `progress_line` hold
shared options and printing. `relay/` runs the relay for `publish`.
`logs`, `signals` and `telemetry/` set up the parts that a program needs and a library leaves to
its caller.

Importing this package raises `MissingExtra` without click and rich.
"""

from importlib.util import find_spec

if find_spec("click") is None or find_spec("rich") is None:
    from dsql_outbox.outbox.errors import MissingExtra

    raise MissingExtra("cli", "the command dsql-outbox")

from .main import main

__all__ = ["main"]
