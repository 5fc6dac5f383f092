"""The result of a run as text and as JSON, and the progress while it runs."""

import asyncio
import statistics
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console

from .check import Delivery, Pause, Verdict, judge, pauses, takeovers
from .fleet import Fleet
from .harm import Nemesis, times
from .load import Load
from .world import Stored


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a run; all times are in seconds."""

    verdict: Verdict
    committed: int
    delivered: int
    waiting: int
    dead: int
    writes: Mapping[str, int]
    harms: Mapping[str, int]
    outages: Mapping[str, float]
    takeovers: Mapping[str, Sequence[float]]
    longest_pause: float
    """The longest pause of any subject, without pauses that overlap an outage."""
    exit_codes: Mapping[int, int]
    """The number of publishers that ended by themselves, per exit code."""
    too_slow: int
    """How many publishers did not end within 30 s after SIGTERM."""
    others: Mapping[str, Verdict] = field(default_factory=dict)
    """The verdict on each further target."""
    sent_again: int = 0
    """How many messages a plain subscriber received after the first one of their event."""
    findings: int = 0
    """How many rows `verify` found wrong at the end."""

    @property
    def rules(self) -> dict[str, int]:
        """How often each rule was broken."""
        return {
            **self.verdict.counts,
            **{
                f"{target}: {rule}": count
                for target, verdict in self.others.items()
                for rule, count in verdict.counts.items()
            },
            "model: applied twice": self.others["model"].duplicates if self.others else 0,
            "dead letters": self.dead,
            "left in the outbox": self.waiting,
            "publishers that did not end on SIGTERM": self.too_slow,
            "rows that verify found wrong": self.findings,
        }

    @property
    def holds(self) -> bool:
        """Whether no rule was broken."""
        return self.committed > 0 and not any(self.rules.values())

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        verdict = self.verdict
        return {
            "holds": self.holds,
            "rules": self.rules,
            "committed": self.committed,
            "delivered": self.delivered,
            "sent_again": self.sent_again,
            "duplicates": verdict.duplicates,
            "duplicates_after_usual_window": verdict.duplicates_shown,
            "writes": dict(self.writes),
            "harms": dict(self.harms),
            "outages": dict(self.outages),
            "takeovers": {kind: list(found) for kind, found in self.takeovers.items()},
            "longest_pause": self.longest_pause,
            "exit_codes": dict(self.exit_codes),
        }


def result_of(
    found: Stored,
    deliveries: Sequence[Delivery],
    nemesis: Nemesis,
    fleet: Fleet,
    load: Load,
) -> Result:
    """Compute the result of a run."""
    outages = list(nemesis.outages.values())
    by_shard = pauses(found.committed, deliveries, found.shards)
    by_key = pauses(found.committed, deliveries, {key: key for key in found.shards})
    return Result(
        verdict=judge(found.committed, deliveries),
        committed=len(found.committed),
        delivered=len(deliveries),
        waiting=found.waiting,
        dead=found.dead,
        writes=load.outcomes,
        harms=Counter(harm.kind for harm in nemesis.harms),
        outages={name: outage.length for name, outage in nemesis.outages.items()},
        takeovers={
            kind: takeovers(times(nemesis.harms, kind), outages, by_shard)
            for kind in ("killed", "stopped", "restarted")
        },
        longest_pause=max(
            (p.length for group in by_key.values() for p in group if not _in(p, outages)),
            default=0.0,
        ),
        exit_codes=fleet.ended,
        too_slow=fleet.too_slow,
    )


def report(given: Namespace, result: Result) -> Iterator[str]:
    """The lines of the report."""
    verdict = result.verdict
    options = f", options {given.publish_options}" if given.publish_options else ""
    yield f"seed {given.seed}, {given.publishers} publishers{options}"
    yield f"  events committed   {result.committed:,} ({_listed(result.writes)})"
    yield f"  messages stored    {result.delivered:,}"
    yield f"  sent again         {result.sent_again:,} heard, of which the broker stored"
    yield f"    {verdict.duplicates:,} in this stream, which knows a message again for 0.1 s only"
    yield f"    {verdict.duplicates_shown:,} in one with the usual 120 s"
    for target, other in result.others.items():
        yield f"  target {target:<12}{other.duplicates:,} more than once"
    yield f"  publishers         {_listed(result.harms) or 'not harmed'}"
    if result.exit_codes:
        yield f"  ended by itself    {_listed(result.exit_codes, 'with code ')}"
    for name, length in result.outages.items():
        yield f"  {name + ' away':<19}{length:.0f} s"
    for kind, found in result.takeovers.items():
        if found:
            yield (
                f"  after one is {kind:<10} its shards waited {statistics.median(found):.2f} s, "
                f"at most {max(found):.2f} s"
            )
    yield f"  longest pause of a subject, outages apart: {result.longest_pause:.2f} s"
    for rule, count in result.rules.items():
        yield f"  {'FAILED' if count else 'ok':<7}{rule}: {count:,}"
    for name in ("lost", "disordered", "foreign", "altered"):
        yield from (f"  {name} {event_id}" for event_id in list(getattr(verdict, name))[:5])


class Progress:
    """Shows the state: one changing line on a terminal, else one line every 10 seconds."""

    def __init__(self, file: TextIO) -> None:
        self._console = Console(file=file)

    async def run(self, state: Callable[[], str]) -> None:
        """Show `state` until cancelled."""
        if not self._console.is_terminal:
            while True:
                self._console.print(state(), soft_wrap=True)
                await asyncio.sleep(10)
        with self._console.status(state()) as status:
            while True:
                await asyncio.sleep(0.5)
                status.update(state())


def _listed(counts: Mapping[Any, int], prefix: str = "") -> str:
    return ", ".join(f"{count:,} {prefix}{name}" for name, count in counts.items())


def _in(pause: Pause, outages: Sequence[Pause]) -> bool:
    return any(outage.start < pause.end and outage.end > pause.start for outage in outages)
