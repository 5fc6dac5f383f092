"""``make pressure``: a queue beside long queries, which keep dead rows from being removed.

The setting is that of PlanetScale's test (April 2026, "Keeping a Postgres queue healthy"): 800
events per second, and three analytic queries of 120 seconds at a time, for 15 minutes. Each
contestant has the server for itself, in turn, with a database of its own: first some quiet
minutes, of which the last one counts, then those under pressure. Writer and relay are two
processes, and the sink acknowledges at once. At the end the relay starts again, among the dead rows
that the queries hold. Exits with 1 if ours misses a goal.
"""

import argparse
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain

import psycopg
from benchmarks.measure import load, machine
from benchmarks.peers.contestants import CONTESTANTS, OWN, Contestant
from benchmarks.peers.pair import Pair, pair
from benchmarks.relay.rows import new_database

from dsql_outbox.testing import EmbeddedPostgres

from .analytics import Analytics
from .verdict import BACKLOG, RATIO, RESTART_MS, RESTART_SERVER_MS, Minute, verdict

_PEER = "pgqueuer"
_RESTART = 20, 5, 5  # events per second, and seconds: few, so that the start is what they cost
_DEAD = "SELECT relname, n_dead_tup FROM pg_stat_user_tables WHERE n_dead_tup > 0"
_HEAD = (
    f"  {'minute':<12} {'written':>8} {'relayed':>8} {'waiting':>8} {'dead rows':>10}"
    f" {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'write p99':>10} {'server ms':>10} {'load':>5}"
)


def options() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser("make pressure", description=__doc__)
    parser.add_argument("--minutes", type=int, default=15, help="under pressure (15)")
    parser.add_argument("--quiet", type=int, default=2, help="minutes before (2)")
    parser.add_argument("--minute", type=int, default=60, help="seconds of a minute (60)")
    parser.add_argument("--rate", type=int, default=800, help="events per second (800)")
    parser.add_argument("--queries", type=int, default=3, help="at a time (3)")
    parser.add_argument("--query-seconds", type=int, default=120, help="of each query (120)")
    parser.add_argument(
        "--only", default=f"{OWN};{_PEER}", metavar="CONTESTANT;..", help=f"({OWN};{_PEER})"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per minute")
    return parser


def minutes(running: Pair, url: str, given: argparse.Namespace) -> Iterator[Minute]:
    """Run a contestant, and yield its minutes as they end, and what follows a restart."""
    waiting, seconds = 0, (given.quiet + given.minutes) * given.minute
    with ExitStack() as pressure, psycopg.connect(url, autocommit=True) as connection:
        pressed = running.intervals(given.rate, seconds, given.minute)
        for number, (written, relayed, cost) in enumerate(
            chain(pressed, running.intervals(*_RESTART)), 1
        ):
            is_last = number > given.quiet + given.minutes
            waiting += written.events - relayed.events
            yield Minute(
                number=number,
                phase="quiet" if number <= given.quiet else "restarted" if is_last else "pressed",
                written=written.events,
                relayed=relayed.events,
                backlog=max(0, waiting),
                p50=relayed.p50,
                p99=relayed.p99,
                max=relayed.max,
                write_p99=written.p99,
                server=cost.server * relayed.events / 1_000,
                dead=dict(connection.execute(_DEAD).fetchall()),
                load=load(),
            )
            if number == given.quiet:
                pressure.enter_context(Analytics(url, given.queries, given.query_seconds))


def row(minute: Minute) -> str:
    """The row of a minute."""
    name = str(minute.number) if minute.phase == "pressed" else f"{minute.number} {minute.phase}"
    dead = sum(minute.dead.values())
    return (
        f"  {name:<12} {minute.written:>8,} {minute.relayed:>8,} {minute.backlog:>8,} {dead:>10,}"
        f" {minute.p50:>8.1f} {minute.p99:>8.1f} {minute.max:>8.1f} {minute.write_p99:>10.1f}"
        f" {minute.server:>10,.0f} {minute.load:>5.1f}"
    )


def press(server: EmbeddedPostgres, contestant: Contestant, given: argparse.Namespace) -> bool:
    """Run a contestant and print its minutes. Returns whether the goals hold."""
    url = new_database(server, "pressed")
    found: list[Minute] = []
    if not given.json:
        print(contestant.name, _HEAD, sep="\n", flush=True)
    with pair(contestant, url) as running:
        for minute in minutes(running, url, given):
            found.append(minute)
            told = {"contestant": contestant.name} | minute._asdict()
            print(json.dumps(told) if given.json else row(minute), flush=True)
    judged = verdict(found, given.rate)
    if judged is not None and not given.json:
        print(
            f"  p99 {judged.p99_ratio:.1f} times that of the quiet minute (<= {RATIO:g}), "
            f"{judged.backlog:,} events waited at most (<= {BACKLOG * given.rate:,.0f})\n"
            f"  restarted: {judged.longest:,.0f} ms until all were there (<= {RESTART_MS:,.0f}), "
            f"{judged.server:,.0f} ms of the server (<= {RESTART_SERVER_MS:,.0f})\n"
        )
    return judged is None or judged.holds


def main() -> int:
    """Run the contestants in turn."""
    parser = options()
    given = parser.parse_args()
    known = {each.name: each for each in CONTESTANTS}
    names = given.only.split(";")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no contestant {', '.join(unknown)}: there are {'; '.join(known)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM stops the server
    with EmbeddedPostgres(settings={"max_wal_size": "4GB"}) as server:
        held = {name: press(server, known[name], given) for name in names}
    if not given.json:
        print(machine())
    return 0 if held.get(OWN, True) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
