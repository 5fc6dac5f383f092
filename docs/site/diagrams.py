"""The diagrams of the concepts. `make pictures` writes them to docs/pictures/."""

import sys
from pathlib import Path
from typing import Final

from blocks import Arrow, Blocks, Box
from sequence import Diagram, Message, Note

DIAGRAMS: Final[dict[str, Blocks | Diagram]] = {
    "architecture": Blocks(
        "Your service stores rows and events in one transaction; publishers send them in order.",
        (
            Box(8, 8, 160, 120, "your service", ("your session", "writer")),
            Box(
                272, 8, 176, 120, "your database",
                ("your rows", "events and entities", "outbox, in shards", "leases"),
            ),
            Box(8, 176, 160, 80, "broker", ("a topic per type", "of event")),
            Box(272, 176, 176, 80, "publishers", ("each leases shards,", "one subject in order")),
            Box(8, 304, 160, 60, "consumer", ("inbox: once",)),
        ),
        (
            Arrow("your service", "your database", "one commit"),
            Arrow("your database", "publishers", "rows"),
            Arrow("publishers", "broker", "messages"),
            Arrow("broker", "consumer", "at least once"),
        ),
    ),
    "subjects": Blocks(
        "The first entity of an event is its subject. A shard holds many subjects, and a "
        "publisher leases shards. The messages of one subject keep their order.",
        (
            Box(
                8, 8, 440, 60, "an event of Loan LOAN-7 and Car car-3",
                ("its first entity, LOAN-7, is its subject",),
            ),
            Box(8, 116, 140, 80, "shard 0", ("LOAN-7: 1, 2, 3", "car-4: 1, 2")),
            Box(158, 116, 140, 80, "shard 1", ("LOAN-9: 1", "car-3: 1, 2, 3")),
            Box(308, 116, 140, 80, "shard 2", ("car-8: 1, 2", "LOAN-5: 1")),
            Box(
                8, 244, 290, 80, "publisher A",
                ("sends LOAN-7: 1, then 2, then 3", "and other subjects meanwhile"),
            ),
            Box(308, 244, 140, 80, "publisher B", ("sends the subjects", "of shard 2")),
        ),
        (
            Arrow("an event of Loan LOAN-7 and Car car-3", "shard 0", "always here"),
            Arrow("shard 0", "publisher A", "lease"),
            Arrow("shard 1", "publisher A", "lease"),
            Arrow("shard 2", "publisher B", "lease"),
        ),
    ),
    "targets": Blocks(
        "One commit inserts a message for each target. Each target has its own waiting messages, "
        "its own publishers, and its own sink or read model, so none waits for another one.",
        (
            Box(8, 8, 440, 60, "event 9", ("one commit inserts a message for each target",)),
            Box(8, 100, 140, 80, "default", ("a sink", "9 waits")),
            Box(158, 100, 140, 80, "lake", ("a sink", "5 to 9 wait")),
            Box(308, 100, 140, 80, "orders_per_day", ("a read model", "8 and 9 wait")),
            Box(8, 228, 140, 44, "publishers 1, 2"),
            Box(158, 228, 140, 44, "publisher 3"),
            Box(308, 228, 140, 44, "publisher 4"),
            Box(8, 320, 140, 80, "RabbitMQ", ("has 1 to 8",)),
            Box(158, 320, 140, 80, "Kafka", ("has 1 to 4,", "and is down")),
            Box(308, 320, 140, 80, "your table", ("has 1 to 7,", "each once")),
        ),
        (
            Arrow("event 9", "default", ""),
            Arrow("event 9", "lake", ""),
            Arrow("event 9", "orders_per_day", ""),
            Arrow("default", "publishers 1, 2", "leases"),
            Arrow("lake", "publisher 3", "leases"),
            Arrow("orders_per_day", "publisher 4", "leases"),
            Arrow("publishers 1, 2", "RabbitMQ", "send"),
            Arrow("publisher 3", "Kafka", "retries"),
            Arrow("publisher 4", "your table", "applies"),
        ),
    ),
    "two-bugs": Diagram(
        "Two bugs of home-made outboxes: a row that is skipped, and a batch that is reordered.",
        ("your service", "outbox table", "a simple relay", "broker"),
        (
            Note(0, 3, "A row that is skipped"),
            Message(0, 1, "A inserts row 7"),
            Message(0, 1, "B inserts row 8 and commits"),
            Message(2, 1, "rows after 6?"),
            Message(1, 2, "row 8"),
            Message(2, 3, "8"),
            Message(0, 1, "A commits row 7", "good"),
            Message(2, 1, "rows after 8?"),
            Note(2, 2, "row 7 is never read:\nthe event is lost", "bad"),
            Note(0, 3, "A batch that is reordered"),
            Message(1, 2, "9, 10 and 11 of car-1"),
            Message(2, 3, "9, 10, 11"),
            Message(3, 2, "10 is refused", "bad"),
            Message(2, 3, "10 again, after 11"),
            Note(3, 3, "the consumer sees\n9, 11, 10", "bad"),
        ),
    ),
    "conflict": Diagram(
        "A conflict: the slower transaction is refused, and the writer runs all of it again.",
        ("writer A", "database", "writer B"),
        (
            Note(1, 1, "car-7 has version 4"),
            Message(0, 1, "event of car-7"),
            Message(2, 1, "event of car-7"),
            Message(1, 0, "committed: version 5", "good"),
            Message(1, 2, "40001 (OC000): conflict", "bad"),
            Note(2, 2, "nothing of B is stored;\nB waits 100 ms", "wait"),
            Message(2, 1, "the whole transaction again,\non a new connection"),
            Message(1, 2, "committed: version 6", "good"),
            Note(0, 2, "It tries until 30 s are over. Then the caller gets the exception."),
        ),
    ),
    "unknown-commit": Diagram(
        "An unknown commit: the answer is lost, and the writer asks the database what happened.",
        ("your program", "writer", "database"),
        (
            Message(0, 1, "write(event)"),
            Message(1, 2, "one statement, with a write id"),
            Message(2, 1, "committed", "bad", lost=True),
            Note(1, 1, "the connection is gone:\nstored, or not?"),
            Message(1, 2, "new connection:\nis this write id stored?"),
            Message(2, 1, "yes: its versions, its position", "good"),
            Message(1, 0, "receipt", "good"),
            Note(
                0,
                2,
                "no: the writer tries again with the same event id, so it is never stored twice\n"
                "no answer within max_outage: OutcomeUnknown",
            ),
        ),
    ),
    "relay": Diagram(
        "The relay: a row leaves the outbox only after the broker has acknowledged its message.",
        ("outbox table", "publisher", "broker"),
        (
            Message(1, 0, "read the next rows of my shards"),
            Message(0, 1, "500 rows, in order of position"),
            Message(1, 2, "publish, with the event id for dedupe"),
            Message(2, 1, "acknowledged", "good"),
            Message(1, 0, "delete the rows", "good"),
            Note(0, 2, "A crash before the delete: the rows are sent again. No message is lost."),
        ),
    ),
    "leases": Diagram(
        "Leases: a shard has one publisher at a time; another takes over when the lease ends.",
        ("publisher A", "outbox_leases", "publisher B"),
        (
            Message(0, 1, "renew shard 3, every 3 s"),
            Note(0, 0, "A stops: killed,\nor cut off"),
            Message(2, 1, "read: shard 3 ends in 8 s"),
            Note(1, 2, "10 s after A's last renewal the lease has ended", "wait"),
            Message(2, 1, "take shard 3, epoch 7 → 8"),
            Message(1, 2, "one row changed: it is B's", "good"),
            Note(0, 0, "if A still runs, it has\nstopped sending before:\nits own clock says so"),
            Message(0, 1, "renew shard 3, epoch 7"),
            Message(1, 0, "no such row: not yours", "bad"),
        ),
    ),
    "order": Diagram(
        "Order: a message that fails holds back its own subject, and nothing else.",
        ("outbox, one shard", "publisher", "broker"),
        (
            Message(0, 1, "car-1 №1 · car-1 №2 · car-1 №3 · car-2 №1"),
            Message(1, 2, "car-1 №1"),
            Message(2, 1, "acknowledged", "good"),
            Message(1, 2, "car-1 №2"),
            Message(2, 1, "refused for now", "bad"),
            Note(1, 1, "car-1 waits: №3 stays\nbehind №2", "wait"),
            Message(1, 2, "car-2 №1 goes on"),
            Message(2, 1, "acknowledged", "good"),
            Message(1, 2, "car-1 №2 again, then car-1 №3"),
            Message(2, 1, "acknowledged", "good"),
        ),
    ),
}  # fmt: skip


def draw(folder: Path) -> None:
    """Write each diagram to its file in the folder."""
    folder.mkdir(exist_ok=True)
    for name, diagram in DIAGRAMS.items():
        (folder / f"{name}.svg").write_text(diagram.svg(), encoding="utf-8")


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
