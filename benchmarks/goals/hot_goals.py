"""The goals of a hot entity, where nobody waits for a row lock."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import chain
from typing import Any

import httpx
import psycopg
from benchmarks.relay.rows import new_database
from benchmarks.writer.simulated_storm import simulated_storm
from benchmarks.writer.storm import POLICIES, storm
from click.testing import CliRunner
from fastapi import FastAPI
from tests.support.dsql.governed import GovernedPostgres
from tests.support.writer.refusing_server import refuse
from tests.support.writer.slow_openings import SlowOpenings

from dsql_outbox import AsyncWriter, Database, Entity, Event, Receipt, Writer
from dsql_outbox.cli.main import main
from dsql_outbox.doors.fastapi import OutboxWriter
from dsql_outbox.doors.starlette import Outbox, install_error_handlers

from .conditions import Conditions
from .goal import Goal, Line

_COMMIT = 0.03
_DEFAULT = POLICIES["ours: the default"]
_CALLERS, _REQUESTS = 48, 8
_SERVED = 64
_REFUSED = 7


def _moved() -> Event:
    return Event.new("CarMoved", [Entity("Car", "CAR-1", {})])


def _stormed(writers: int, writes: int, entities: int, conditions: Conditions) -> list[float]:
    """The share that is stored in %, the p95 and the longest call in s, openings per conflict."""
    url = new_database(conditions.server, f"hot_{writers}")
    with GovernedPostgres(url, commit_time=_COMMIT) as governed:
        found = asyncio.run(storm(governed.url, _DEFAULT, writers, writes, entities))
    again = (governed.opened - writers) / max(1, found.conflicts)
    return [100 * found.receipts / found.calls, found.p95, found.longest, again]


def _storm(writers: int, writes: int, entities: int = 1) -> Line:
    of = "one entity" if entities == 1 else f"{entities} entities"
    return Line(
        f"storm{writers}",
        [
            Goal(f"{writers} writers of {of}, 30 ms per commit: stored", 100, unit=" %"),
            Goal("the same: p95 of a call", 30, most=True, unit=" s"),
            Goal("the same: longest call", 30, most=True, unit=" s"),
            Goal("the same: openings per conflict", 1, most=True),
        ],
        partial(_stormed, writers, writes, entities),
    )


def _virtual(_: Conditions) -> list[float]:
    """The least share of ten storms in virtual time, and the longest call of all."""
    found = [simulated_storm(_DEFAULT, 20, 20, 0.06, seed) for seed in range(10)]
    share = min(each.stored / each.calls for each in found)
    return [100 * share, max(each.longest for each in found)]


@asynccontextmanager
async def _service(url: str) -> AsyncGenerator[httpx.AsyncClient]:
    """An application with the default settings, and a client of it."""
    outbox = Outbox(Database(url), settings=_DEFAULT)
    app = FastAPI()
    install_error_handlers(app)

    @app.post("/write")
    async def write(writer: OutboxWriter) -> Receipt:
        return await writer.write(_moved())

    @app.post("/turn")
    async def turn(writer: OutboxWriter) -> Receipt:
        return await writer.transact(lambda t: t.append(_moved()), entities=[("Car", "CAR-1")])

    async with outbox.lifespan(app) as state:

        async def served(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(served)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            yield client


async def _errors(url: str, path: str) -> float:
    """The share of answers that are errors, in %."""
    async with _service(url) as client:

        async def caller() -> list[int]:
            answers = [await client.post(path, timeout=None) for _ in range(_REQUESTS)]
            return [answer.status_code for answer in answers]

        codes = [*chain.from_iterable(await asyncio.gather(*(caller() for _ in range(_CALLERS))))]
    return 100 * sum(code != 200 for code in codes) / len(codes)


def _behind_fastapi(conditions: Conditions) -> list[float]:
    found: list[float] = []
    for path in ("write", "turn"):
        url = new_database(conditions.server, f"hot_fastapi_{path}")
        with GovernedPostgres(url, commit_time=_COMMIT) as governed:
            found.append(asyncio.run(_errors(governed.url, path)))
    return found


async def _thrown_away(proxy: SlowOpenings) -> tuple[float, float]:
    """The connections closed before their writer, and the share of callers that were served."""

    async def caller(writer: AsyncWriter) -> int:
        with suppress(psycopg.OperationalError):
            await writer.write(_moved(), timeout=1.5)
            return 1
        return 0

    async with AsyncWriter(Database(proxy.url), _DEFAULT) as writer:
        await asyncio.gather(*(caller(writer) for _ in range(_SERVED)))
        served = await asyncio.gather(*(caller(writer) for _ in range(_SERVED)))
        return proxy.closed, 100 * sum(served) / _SERVED


def _slow_openings(conditions: Conditions) -> list[float]:
    url = new_database(conditions.server, "hot_openings")
    with SlowOpenings(url, delay=2.0) as proxy:
        return list(asyncio.run(_thrown_away(proxy)))


def _refusing(conditions: Conditions) -> list[float]:
    """How many events are stored, and the exit code of doctor, or 0 if it names no form."""
    url = new_database(conditions.server, "hot_refusing")
    with psycopg.connect(url, autocommit=True) as connection:
        refuse(lambda sql: connection.execute(sql.encode()), "42804")
    with Writer(Database(url), _DEFAULT) as writer:
        stored = [writer.write(_moved()) for _ in range(_REFUSED)]
    done = CliRunner().invoke(main, ["doctor", "--probe", "--database", url])
    named = "refused with 42804, and the plain form works" in done.output
    return [len(stored), done.exit_code if named else 0]


HOT = [
    _storm(1, 100),
    _storm(8, 20),
    _storm(20, 20),
    _storm(24, 32, entities=6),
    Line(
        "virtual",
        [
            Goal("20 writers in virtual time, 60 ms per attempt: stored", 100, unit=" %"),
            Goal("the same: longest call", 30, most=True, unit=" s"),
        ],
        _virtual,
    ),
    Line(
        "fastapi",
        [
            Goal(f"{_CALLERS} callers of one entity behind FastAPI: errors", 0.5, True, " %"),
            Goal("the same, a turn per entity: errors", 0, True, " %"),
        ],
        _behind_fastapi,
    ),
    Line(
        "openings",
        [
            Goal("openings of 2 s, 64 callers with 1.5 s: thrown away", 0, most=True),
            Goal("the same: served when they call again", 100, unit=" %"),
        ],
        _slow_openings,
    ),
    Line(
        "refusing",
        [
            Goal(f"a server that refuses at run time: of {_REFUSED} stored", _REFUSED),
            Goal("the same: doctor's exit code, with the form that works", 1),
        ],
        _refusing,
    ),
]
