"""A producer: a change of its own table and the event about it, in one transaction."""

from pathlib import Path

import psycopg

from dsql_outbox import Database, Entity, Event, Receipt, Transaction, Writer
from dsql_outbox.testing import EmbeddedPostgres


def pay(transaction: Transaction) -> Receipt:
    paid = "UPDATE loans SET balance = balance - 100 WHERE id = 'LOAN-7' RETURNING balance"
    ((balance,),) = transaction.connection.execute(paid)
    loan = Entity("Loan", "LOAN-7", {"balance": balance})
    return transaction.append(Event.new("LoanPaid", [loan]))


with EmbeddedPostgres(Path("outbox-data")) as server:
    with psycopg.connect(server.url) as sql:
        sql.execute("CREATE TABLE IF NOT EXISTS loans (id text PRIMARY KEY, balance int)")
        sql.execute("INSERT INTO loans VALUES ('LOAN-7', 9000) ON CONFLICT DO NOTHING")
    with Writer(Database(server.url)) as writer:
        receipt = writer.transact(pay)
        print(receipt.event_id, receipt.status, f"version {receipt.entities[0].version}")
