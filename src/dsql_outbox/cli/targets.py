"""The command `targets`: list, add or drop targets."""

from typing import Any

import click

from dsql_outbox.operations.fills import FillProgress
from dsql_outbox.operations.targets import AddRun, Target, Targets

from .filters import confirm, json_option, rate_option, reason_option, source_option, yes_option
from .job import drive
from .logs import announce
from .output import counted, filled_state, json_line, lacking, listed, of_about, say
from .signals import GO_ON, READ_ONLY
from .tool_call import with_tool


@click.group()
def targets() -> None:
    """List, add or drop targets.

    A target is a consumer of messages with its own progress, such as a second broker or
    a read model. Each event makes a message for each target. A new outbox has the target
    `default`, which all commands use unless you name another one.
    """


@targets.command("list")
@json_option
@with_tool(Targets, READ_ONLY, duty="reader")
async def list_(tool: Targets, *, as_json: bool) -> None:
    """List the targets."""
    header = ("target", "kind", "state", "types")
    listed(await tool.list(), header, _cells, as_json=as_json, none="no targets")


def _cells(target: Target) -> tuple[str, ...]:
    types = "all" if target.types is None else ", ".join(target.types)
    return target.name, target.kind, filled_state(target.state, target.fill), types


@targets.command()
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["sink", "model"]),
    default="sink",
    show_default=True,
    help="Whether its publishers send messages to a broker, or apply them to a read model.",
)
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    help="A type of subjects that it takes; may be repeated. Without it, all.",
)
@click.option(
    "--from-start",
    is_flag=True,
    help="Fill it with the messages of the events that are stored already.",
)
@source_option(
    "With --from-start, the CloudEvents source. It is not stored, so repeat the one of the "
    "writers' settings."
)
@rate_option
@reason_option
@json_option
@with_tool(Targets, duty="operator", logs=True)
async def add(tool: Targets, *, types: tuple[str, ...], as_json: bool, **asked: Any) -> None:
    """Add a target, which gets the messages of events from now on.

    With --from-start it gets those of all events: it is filled with the earlier ones, beside
    working writers and publishers, and starts when it is full.

    It waits for the transactions that are open: on Aurora DSQL for 5 minutes. If it is
    interrupted, run it again with the same options.
    """
    added = tool.add(types=types or None, **asked)
    await drive(added, lambda: _added(added), as_json=as_json)


def _added(run: AddRun) -> str:
    target = run.progress
    waits = f", waits for {run.waits_for}" if run.waits_for else ""
    fill = "" if target.fill is None else f", {_fill_line(target.fill)}"
    return f"{target.name}  {target.state}{waits}{fill}"


def _fill_line(fill: FillProgress) -> str:
    of = of_about(fill.read, fill.total)
    read = f"read {fill.read:,}{of} events"
    return f"filled with {counted(fill.messages, 'message')}, {read}{lacking(fill)}"


@targets.command()
@click.argument("name")
@yes_option
@reason_option
@json_option
@with_tool(Targets, GO_ON, duty="operator", logs=True)
async def drop(tool: Targets, *, name: str, yes: bool, reason: str, as_json: bool) -> None:
    """Drop a target for good, with its waiting messages and dead letters.

    The stored events stay. Its name is not used again. It waits for the transactions
    that are open: on Aurora DSQL for 5 minutes.
    """
    confirm(f"Drop the target {name} for good, with all messages that wait for it?", yes=yes)
    done = await tool.drop(name, reason=reason, told=lambda what: announce(f"waits for {what}"))
    if as_json:
        json_line(done)
        return
    parts = [
        counted(done.messages + done.late, "message"),
        counted(done.dead_letters, "dead letter"),
    ]
    late = f", {done.late:,} of them stored by transactions that began before" if done.late else ""
    say(f"{name}  dropped, with {' and '.join(parts)}{late}")
