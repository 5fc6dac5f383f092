"""The command `verify`: compare the stored events with each other."""

from typing import Any

import click
import msgspec

from dsql_outbox.operations.verification.finding import Finding
from dsql_outbox.operations.verification.verifier import Verification, Verifier

from .exit_codes import FAILED
from .filters import json_option, rate_option, time_or_age
from .job import drive
from .output import counts, json_line, of_about, say_folded
from .tool_call import with_tool


@click.command(
    short_help="Compare the stored events with each other.",
    epilog="""\b
Examples:
  dsql-outbox verify
  dsql-outbox verify --since 2d --json

\b
Exit codes:
  0    nothing is wrong
  1    rows are wrong: each is named on standard output
  2    wrong usage
  69   the database cannot be reached
  78   the tables are missing or older: run `dsql-outbox schema apply`
  130  ended by Ctrl-C (143: by SIGTERM)""",
)
@click.option(
    "--since",
    metavar="TIME",
    callback=time_or_age,
    help="Read only the bytes of events saved since: a time in ISO 8601, or an age such as 2d.",
)
@json_option
@rate_option
@with_tool(Verifier, duty="reader", logs=True)
async def verify(tool: Verifier, *, as_json: bool, **asked: Any) -> None:
    """Compare the stored events with each other, and name each row that is wrong.

    The bytes of each event must have the fingerprint that was stored with them. The
    versions of each entity must have no gap, and the positions of each subject must rise.
    Headers, events and entities must agree. Each message in the outbox and each dead letter
    must be what its event or a replay made of it: in the shard, at the position and behind
    the message that order asks for.

    The command only reads, page by page, and may run beside writers and publishers. Each line
    names what is wrong, the table, and the key of the row. With --json, the last line holds
    the counts. A check that was stopped does not continue later: the next one begins anew.
    """
    run = tool.verify(**asked)
    await drive(
        run,
        lambda: _line(run),
        as_json=as_json,
        tell=lambda each: json_line(each) if as_json else say_folded(_shown(each)),
        counts=lambda: msgspec.structs.replace(run.progress, total=None),
    )
    if run.progress.findings:
        raise click.exceptions.Exit(FAILED)


def _shown(finding: Finding) -> str:
    return f"{finding.fault}  {finding.table}  {finding.key}  {finding.text}"


def _line(run: Verification) -> str:
    done, is_done = run.progress, run.again is None
    of = "" if is_done else of_about(done.events, done.total)
    earlier = f" ({done.skipped:,} saved earlier)" if done.skipped else ""
    parts = [
        f"events: {done.events:,}{of}{earlier}",
        *counts(
            {
                "headers": done.headers,
                "entities": done.entities,
                "messages": done.messages,
                "dead letters": done.dead_letters,
                "findings": done.findings,
            }
        ),
    ]
    return ", ".join(parts) + ("; all agree" if is_done and not done.findings else "")
