"""The door for FastAPI: answers, errors and their description, on a real server."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from fastapi import FastAPI, Query
from pydantic import BaseModel
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from tests.support.driver_sessions import engine_url
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.served_app import served

from dsql_outbox import AsyncTransaction, Database, Entity, Event, Receipt, WriterSettings
from dsql_outbox.fastapi import PROBLEMS, OutboxWriter
from dsql_outbox.starlette import Outbox, install_error_handlers
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer.tuned_settings import TunedSettings

pytestmark = pytest.mark.anyio


class Car(BaseModel):
    id: UUID
    make: str = "VW"


@dataclass
class Mileage:
    km: int


def api(outbox: Outbox, **handlers: int) -> FastAPI:
    app = FastAPI(lifespan=outbox.lifespan, responses=PROBLEMS)
    install_error_handlers(app, **handlers)

    def created(car: Car) -> Event:
        return Event.new("CarCreated", [Entity("Car", "1", car)], id=car.id)

    @app.post("/cars", status_code=201)
    async def create(
        car: Car, writer: OutboxWriter, version: Annotated[int | None, Query()] = None
    ) -> Receipt:
        return await writer.write(created(car), expected_version=version)

    @app.post("/untyped", status_code=201, response_model=None)
    async def create_untyped(car: Car, writer: OutboxWriter) -> Any:
        return await writer.write(created(car))

    @app.post("/mileage/{km}")
    async def drive(km: int, writer: OutboxWriter) -> Receipt:
        car = Entity("Car", "", Mileage(km)) if km < 0 else Entity("Car", "1", Mileage(km))
        return await writer.write(Event.new("CarDriven", [car]))

    @app.get("/fault")
    async def fail() -> None:
        raise psycopg.ProgrammingError("a secret")

    return app


@pytest.fixture
def database(outbox_url: str) -> Database:
    return Database(outbox_url)


def car(**fields: str) -> dict[str, str]:
    return {"id": str(uuid4()), **fields}


async def test_a_receipt_is_the_answer_and_the_message_leaves(database: Database) -> None:
    sink = MemorySink()
    async with served(api(Outbox(database, sink=sink))) as server:
        first, second = car(), car()
        answer = await server.client.post("/cars", json=first)
        untyped = await server.client.post("/untyped", json=second)
        assert (answer.status_code, untyped.status_code) == (201, 201)
        assert answer.json()["eventId"] == first["id"]
        assert answer.json()["entities"] == [{"entityType": "Car", "entityId": "1", "version": 1}]
        assert untyped.json().keys() == answer.json().keys()
        assert untyped.json()["entities"][0]["version"] == 2
        messages = await sink.published(2)
        assert [str(message.event_id) for message in messages] == [first["id"], second["id"]]


async def test_the_errors_of_a_write_are_problem_details(database: Database) -> None:
    async with served(api(Outbox(database))) as server:
        known = car()
        await server.client.post("/cars", json=known)
        found = [
            await server.client.post("/cars", json=known),
            await server.client.post("/cars", json=car(), params={"version": 7}),
            await server.client.post("/cars", json=car(make="x" * (1 << 20))),
            await server.client.post("/mileage/-1"),
        ]
    assert {answer.headers["content-type"] for answer in found} == {"application/problem+json"}
    problems = [answer.json() for answer in found]
    assert [(p["status"], p["title"]) for p in problems] == [
        (409, "Duplicate event"),
        (409, "Stale version"),
        (413, "Event too large"),
        (422, "Invalid event"),
    ]
    assert [answer.status_code for answer in found] == [p["status"] for p in problems]
    assert (problems[0]["eventId"], problems[0]["sameContent"]) == (known["id"], True)
    assert (problems[1]["expected"], problems[1]["actual"]) == (7, 1)
    assert problems[3]["path"] == "entities[0].entityHeader.entityId"
    assert not any("retry-after" in answer.headers for answer in found)


async def test_a_database_out_of_reach_is_503_without_its_address() -> None:
    settings = WriterSettings(max_outage=0.1, max_retries=0)
    nowhere = Database("postgresql://secret-host@127.0.0.1:1/x", connect_timeout=1)
    async with served(api(Outbox(nowhere, settings))) as server:
        answer = await server.client.post("/cars", json=car())
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "detail": "the database cannot take this request now, send it again later",
        "status": 503,
    }


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("change", "code", "after"),
    [
        pytest.param("?options=-cdefault_transaction_read_only%3Don", 503, "5", id="read-only"),
        pytest.param(
            "?user=nobody",
            500,
            None,
            id="no such login",
            marks=pytest.mark.postgres_only("the endpoint closes an unknown login"),
        ),
    ],
)
async def test_a_failover_asks_to_come_back_and_a_refused_login_is_a_fault(
    outbox_url: str, change: str, code: int, after: str | None
) -> None:
    """A server without writes has a successor soon. A wrong login lasts until it is mended."""
    database = Database(outbox_url.partition("?")[0] + change)
    async with served(api(Outbox(database, WriterSettings(max_retries=0)))) as server:
        answer = await server.client.post("/cars", json=car())
    assert (answer.status_code, answer.headers.get("retry-after")) == (code, after)
    assert "read-only" not in answer.text
    assert "nobody" not in answer.text


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("status", [503, 500])
async def test_an_exhausted_conflict_says_what_it_is_and_when_to_come_back(
    outbox_url: str, status: int
) -> None:
    options = {} if status == 503 else {"exhausted": status}
    with PostgresProxy(outbox_url) as proxy:
        outbox = Outbox(Database(proxy.url), TunedSettings(max_retries=1, base=0.001))
        async with served(api(outbox, **options)) as server:
            proxy.refuse(None)
            answers = [await server.client.post("/cars", json=car()) for _ in range(12)]
    assert {answer.status_code for answer in answers} == {status}
    waits = {int(answer.headers["retry-after"]) for answer in answers}
    assert waits <= {1, 2, 3, 4}
    assert len(waits) > 1, "the losers of one race do not come back together"
    problem = answers[0].json()
    assert (problem["title"], problem["status"]) == ("Conflicts exhausted", status)
    assert "not stored, send it again" in problem["detail"]


async def test_the_time_of_a_write_is_over_and_its_outcome_unknown(database: Database) -> None:
    app = api(Outbox(database))
    install_error_handlers(app, TimeoutError)

    @app.get("/late")
    async def late() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    async with served(app) as server:
        answer = await server.client.get("/late")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["type"] == "urn:dsql-outbox:OutcomeUnknown"
    assert "send it again with the same id" in answer.json()["detail"]


@pytest.mark.parametrize("wrapper", ["driver", "SQLAlchemy", "transact"])
async def test_a_unique_violation_of_the_application_stays_an_error_of_it(
    database: Database, outbox_url: str, wrapper: str
) -> None:
    """No repetition by the client would help: the key is one of the application's table."""
    app = api(Outbox(database))
    install_error_handlers(app, DBAPIError)
    runs: list[int] = []
    sql = "INSERT INTO public.mine VALUES (1)"

    async def insert(transaction: AsyncTransaction) -> None:
        runs.append(1)
        await transaction.connection.execute(sql)

    @app.get("/twice")
    async def twice(writer: OutboxWriter) -> None:
        if wrapper == "driver":
            with psycopg.connect(outbox_url) as connection:
                connection.execute(sql)
        elif wrapper == "transact":
            await writer.transact(insert)
        else:
            with create_engine(
                engine_url(outbox_url, "psycopg"), poolclass=NullPool
            ).connect() as own:
                own.execute(text(sql))

    with psycopg.connect(outbox_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.mine (id int PRIMARY KEY)")
        connection.execute(sql)
        async with served(app) as server:
            answer = await server.client.get("/twice")
        connection.execute("DROP TABLE public.mine")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert "retry-after" not in answer.headers
    assert len(runs) == (wrapper == "transact")


async def test_another_error_stays_an_error_of_the_application(database: Database) -> None:
    async with served(api(Outbox(database))) as server:
        answer = await server.client.get("/fault")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


async def test_a_stop_ends_the_requests_that_run_and_settles_coalesced_events(
    database: Database, outbox_url: str
) -> None:
    sink = MemorySink()
    outbox = Outbox(database, WriterSettings(coalesce=2), sink=sink)
    async with served(api(outbox)) as server:
        cars, codes = [car() for _ in range(50)], list[int]()

        async def create(each: dict[str, str]) -> None:
            answer = await server.client.post("/cars", json=each)
            codes.append(answer.status_code)
            if len(codes) == 5:
                stopping.set()

        stopping = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for each in cars:
                tasks.start_soon(create, each)
            await stopping.wait()
            await server.stop()
    assert codes == [201] * len(cars)
    async with await psycopg.AsyncConnection.connect(outbox_url) as connection:
        stored = await (
            await connection.execute("SELECT id FROM outbox.business_events")
        ).fetchall()
    assert {str(event_id) for (event_id,) in stored} == {each["id"] for each in cars}


def test_openapi_describes_the_receipt_and_the_problems() -> None:
    page = api(Outbox(Database("postgresql://nowhere"))).openapi()
    answers = page["paths"]["/cars"]["post"]["responses"]
    assert set(answers) == {"201", "409", "413", "422", "503"}
    receipt = answers["201"]["content"]["application/json"]["schema"]
    assert receipt == {"$ref": "#/components/schemas/Receipt"}
    assert page["components"]["schemas"]["Receipt"]["required"][0] == "eventId"
    problem = answers["409"]["content"]["application/problem+json"]["schema"]
    assert (problem["title"], problem["required"]) == ("Problem", ["type", "title", "detail"])
