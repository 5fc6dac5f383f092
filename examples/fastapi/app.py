"""The API. POST stores an order as an event; GET reads what consumer and read model keep."""

import os
from datetime import date
from decimal import Decimal
from typing import Annotated
from uuid import UUID, uuid4

import psycopg
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from dsql_outbox import Database, Entity, Event, Receipt
from dsql_outbox.fastapi import PROBLEMS, OutboxWriter
from dsql_outbox.starlette import Outbox, install_error_handlers, readyz

DATABASE_URL = os.environ["DATABASE_URL"]

outbox = Outbox(Database(DATABASE_URL), sink=os.environ["SINK_URL"])
app = FastAPI(title="Orders", lifespan=outbox.lifespan, responses=PROBLEMS)
app.add_route("/readyz", readyz)
install_error_handlers(app)


class Order(BaseModel):
    """A client that chooses `id` may send the order again: it is stored once."""

    id: UUID = Field(default_factory=uuid4)
    customer: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    amount: Annotated[Decimal, Field(gt=0, max_digits=12, decimal_places=2)]


class Balance(BaseModel):
    orders: int
    total: Decimal


class Day(BaseModel):
    day: date
    orders: int
    total: Decimal


@app.post("/orders", status_code=201)
async def create_order(order: Order, writer: OutboxWriter) -> Receipt:
    customer = Entity("Customer", order.customer, {"lastOrder": order.id})
    entities = [customer, Entity("Order", str(order.id), order)]
    event = Event.new("OrderCreated", entities, id=order.id)
    return await writer.write(event, on_duplicate="return")


@app.get("/customers/{customer}")
async def read_balance(customer: str) -> Balance:
    query = "SELECT orders, total FROM balances WHERE customer = %s"
    async with await psycopg.AsyncConnection.connect(DATABASE_URL) as connection:
        row = await (await connection.execute(query, (customer,))).fetchone()
    if row is None:
        raise HTTPException(404, "no order of this customer has been counted yet")
    return Balance(orders=row[0], total=row[1])


@app.get("/revenue")
async def read_revenue() -> list[Day]:
    query = "SELECT day, orders, total FROM revenue ORDER BY day"
    async with await psycopg.AsyncConnection.connect(DATABASE_URL) as connection:
        rows = await (await connection.execute(query)).fetchall()
    return [Day(day=day, orders=orders, total=total) for day, orders, total in rows]
