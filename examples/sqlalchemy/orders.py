"""Orders and their events, each pair in one retried transaction of a SQLAlchemy session.

Reads orders as JSON lines from standard input, and prints a line per order that is stored.
"""

import json
import os
import sys
from pathlib import Path
from uuid import UUID

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from dsql_outbox import Database, DuplicateEvent, Entity, Event, Receipt, Writer, transact
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres


class Base(DeclarativeBase):
    """The tables of this program."""


class Order(Base):
    """An order. Its id comes from the client, which sends the same one when it tries again."""

    __tablename__ = "orders"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    item: Mapped[str]
    quantity: Mapped[int]


def main(url: str) -> None:
    apply(Database(url))
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    with Writer(Database(url)) as writer:
        print("ready", flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            try:
                receipt = place(
                    writer, sessions, UUID(order["id"]), order["item"], order["quantity"]
                )
                print(order["id"], receipt.status, f"attempt {receipt.attempts}", flush=True)
            except DuplicateEvent:
                print(order["id"], "stored before", flush=True)
    engine.dispose()


def place(
    writer: Writer, sessions: sessionmaker[Session], order_id: UUID, item: str, quantity: int
) -> Receipt:
    def run(session: Session) -> Receipt:
        state = Entity("Order", str(order_id), {"item": item, "quantity": quantity})
        event = Event.new("OrderPlaced", [state], id=order_id)
        receipt = writer.append_to(session, event)
        session.add(Order(id=order_id, item=item, quantity=quantity))
        return receipt

    return transact(writer, sessions, run)


if url := os.environ.get("DSQL_OUTBOX_DATABASE"):
    main(url)
else:
    with EmbeddedPostgres(Path("outbox-data")) as server:
        main(server.url)
