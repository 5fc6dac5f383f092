"""The application: it stores an event for each order. A publisher beside it sends them."""

import os
from decimal import Decimal
from uuid import UUID

from fastapi import FastAPI
from pydantic import BaseModel

from dsql_outbox import Database, Entity, Event, Receipt
from dsql_outbox.fastapi import PROBLEMS, Outbox, OutboxWriter, install_error_handlers, readyz

outbox = Outbox(Database(os.environ["DSQL_OUTBOX_DATABASE"]))
app = FastAPI(lifespan=outbox.lifespan, responses=PROBLEMS)
install_error_handlers(app)
app.add_route("/readyz", readyz)


class Order(BaseModel):
    """An order, with an id that the client chooses."""

    id: UUID
    total: Decimal


@app.post("/orders", status_code=201)
async def place(order: Order, writer: OutboxWriter) -> Receipt:
    """Store the event. The same order again gets the same answer."""
    event = Event.new("OrderPlaced", [Entity("Order", str(order.id), order)], id=order.id)
    return await writer.write(event, on_duplicate="return")
