"""The incidents: each breaks a shop that works, and has a cause that a team must find."""

import signal
from collections.abc import Callable
from contextlib import suppress
from time import sleep
from typing import Final, NamedTuple

import psycopg

from dsql_outbox.outbox import Entity, Event

from .contracts import TOO_FAR
from .shop import Shop

_MAP: Final = ("--map", "benchmarks.incidents.contracts:to_wire")


def _nothing(shop: Shop) -> None:
    del shop


class Incident(NamedTuple):
    """`cause` is what a team must find, and `remedy` what ends it.

    `prepare` runs in the shop before its writer. The publisher has the `options`. `affected` is a
    part of the text of an event to ask for; without it, it is the last one. With `disk` the data
    are on a disk of so many MiB. Bytes to the broker take `delay` seconds.
    """

    cause: str
    remedy: str
    harm: Callable[[Shop], object]
    prepare: Callable[[Shop], object] = _nothing
    options: tuple[str, ...] = ()
    affected: str = ""
    disk: int = 0
    delay: float = 0.0


def _topic_missing(shop: Shop) -> None:
    topic = "billing.ReminderSent"
    invoices = [Entity("Reminder", f"REM-{number}") for number in range(12)]
    shop.write(*(Event.new("ReminderSent", [each], topic=topic) for each in invoices))


def _too_large(shop: Shop) -> None:
    note = Entity("Order", "ORD-3", {"note": "x" * 1_048_000})
    shop.write(Event.new("OrderNoted", [note]))


def _too_far(shop: Shop) -> None:
    shop.write(Event.new("OrderPaid", [Entity("Order", "ORD-3", {"step": TOO_FAR})]))


def _fill_disk(shop: Shop) -> None:
    shop.execute("CREATE TABLE public.report AS SELECT repeat(md5(n::text), 30) AS text "
                 "FROM generate_series(1, 10000) AS n")  # fmt: skip
    for rows in ("10000", "50"):
        with suppress(psycopg.errors.DiskFull):
            while True:
                shop.execute("INSERT INTO public.report SELECT text FROM public.report LIMIT "
                             + rows)  # fmt: skip


def _read_only(shop: Shop) -> None:
    shop.execute(
        "ALTER DATABASE postgres SET default_transaction_read_only = on",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'shop_%'",
    )


def _hot(shop: Shop) -> None:
    stock = [Entity("Warehouse", "BERLIN", {"move": number}) for number in range(40_000)]
    shop.write(*(Event.new("StockMoved", [each]) for each in stock))


def _pause_topic(shop: Shop) -> None:
    shop.operate("topics", "pause", "events.InvoiceSent", "--reason", "the new tax system")
    _three_days_ago(shop)


def _three_days_ago(shop: Shop) -> None:
    shop.execute("UPDATE outbox.outbox_topics SET paused_at = paused_at - interval '76 hours'")


def _add_lake(shop: Shop) -> None:
    shop.operate("targets", "add", "lake")
    shop.publish("--target", "lake", sink="?stream=LAKE&subjects=lake.>")


def _pause_lake(shop: Shop) -> None:
    words = ("events.OrderPlaced", "--target", "lake", "--reason", "a new bucket")
    shop.operate("topics", "pause", *words)
    _three_days_ago(shop)


def _add_model(shop: Shop) -> None:
    shop.execute(
        "CREATE TABLE public.order_steps (id text PRIMARY KEY, steps int NOT NULL)",
        "GRANT SELECT, INSERT, UPDATE ON public.order_steps TO shop_publisher",
    )
    shop.operate("targets", "add", "steps", "--kind", "model")
    apply = "benchmarks.incidents.contracts:count_steps"
    shop.publish("--target", "steps", "--apply", apply, sink=None)


def _no_publisher(shop: Shop) -> None:
    shop.end_publishers(signal.SIGKILL)


def _older_tables(shop: Shop) -> None:
    shop.execute(
        "DROP TABLE outbox.outbox_fills",
        "DROP TABLE outbox.outbox_jobs",
        "DELETE FROM outbox.schema_migrations WHERE version >= 21",
    )
    shop.restart_publisher()


def _rename_column(shop: Shop) -> None:
    shop.execute("ALTER TABLE public.order_steps RENAME COLUMN steps TO total")


def _rename_schema(shop: Shop) -> None:
    shop.execute("ALTER SCHEMA outbox RENAME TO outbox_old")


def _revoke(shop: Shop) -> None:
    shop.execute("REVOKE DELETE ON outbox.outbox FROM shop_publisher")


def _both(
    first: Callable[[Shop], object], second: Callable[[Shop], object]
) -> Callable[[Shop], None]:
    def harm(shop: Shop) -> None:
        first(shop)
        sleep(3)  # the first one takes hold
        second(shop)

    return harm


def _stop_broker(shop: Shop) -> None:
    shop.nats.stop()


INCIDENTS: Final = {
    "01": Incident("the broker is down", "start the broker", _stop_broker),
    "02": Incident(
        "no stream takes the topic billing.ReminderSent", "make the stream", _topic_missing,
        affected="ReminderSent",
    ),
    "03": Incident(
        "an event is larger than the broker takes; it was given up",
        "raise the broker's limit and retry it, or drop it", _too_large, affected="OrderNoted",
    ),
    "04": Incident("the publisher was killed", "start it again", _no_publisher),
    "05": Incident("the publisher's role lost a right", "grant it; start the publisher", _revoke),
    "06": Incident("the tables are older than the program", "schema apply", _older_tables),
    "07": Incident("the disk of the database is full", "make room", _fill_disk, disk=140),
    "08": Incident(
        "one subject has a long queue", "wait, or split the subject", _hot,
        affected="Warehouse", delay=0.5,
    ),
    "09": Incident(
        "a topic was paused three days ago", "resume it", _pause_topic, affected="InvoiceSent"
    ),
    "10": Incident(
        "the read model's table changed, so its function fails", "mend the function",
        _rename_column,
        _add_model,
    ),
    "11": Incident(
        "the broker is down, and a topic is paused", "start the broker; then resume the topic",
        _both(_pause_topic, _stop_broker),
    ),
    "12": Incident(
        "the publisher was killed, and an event was given up", "start it again; then the event",
        _both(_too_large, _no_publisher), affected="ORD-3",
    ),
    "13": Incident(
        "an event is larger than the broker takes, and blocks its subject", "retry or drop it",
        _too_large, options=("--on-dead-letter", "block"), affected="ORD-3",
    ),
    "14": Incident(
        "the map fails for one event", "mend the map, or drop the event", _too_far,
        options=_MAP, affected="ORD-3",
    ),
    "15": Incident("the database is read-only", "let it accept writes", _read_only),
    "16": Incident(
        "a topic was paused for one target three days ago", "resume it", _pause_lake, _add_lake
    ),
    "17": Incident(
        "the tables are gone", "restore them, or name the right schema",
        _rename_schema,
    ),
    "18": Incident(
        "the publisher's role lost a right, and a topic is paused", "grant it; then resume",
        _both(_pause_topic, _revoke), affected="InvoiceSent",
    ),
}  # fmt: skip
"""By number: a number says nothing to those who look for the cause."""
