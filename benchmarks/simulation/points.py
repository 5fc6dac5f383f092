"""Rare points of the relay, to which a campaign must come."""

# ruff: noqa: SLF001 - a branch is found inside

from typing import Final

from benchmarks.points import Point

from dsql_outbox.publisher.relay import sender
from dsql_outbox.publisher.relay.memory.pages import Page
from dsql_outbox.publisher.relay.memory.queues import Queues
from dsql_outbox.publisher.relay.outcomes import Outcomes
from dsql_outbox.publisher.relay.reader import Reader
from dsql_outbox.publisher.relay.sender import Sender
from dsql_outbox.publisher.relay.settler import Settler
from dsql_outbox.publisher.relay.store import RowPlace

POINTS: Final = (
    Point(
        "page on its way when its shard was lost",
        Queues,
        "forget_shard",
        lambda queues, shard: any(not page.waits for page in queues.pages[shard].values()),
    ),
    Point(
        "page that waits dropped, since its lease had ended",
        Queues,
        "drop_page",
        lambda _, __, *, is_wanted: is_wanted,
    ),
    Point(
        "run on its way left its page",
        Queues,
        "take_out",
        lambda _, page, at: not page.waits and bool(page.run(at)),
    ),
    Point(
        "page cut between two subjects",
        Page,
        "cut",
        lambda page, most: most < len(page),
    ),
    Point(
        "row settled after its shard was lost",
        Queues,
        "finish",
        lambda _, subject, to: to != "outbox" and subject.shard.is_lost,
    ),
    Point(
        "row waited for its predecessor",
        Queues,
        "_wait_for_predecessor",
        lambda *_: True,
    ),
    Point(
        "failure recorded in a shard that was given up",
        Outcomes,
        "fail",
        lambda outcomes, subject, _: subject.shard.is_lost and outcomes.has_lease(subject.shard),
    ),
    Point(
        "burial left to the next owner",
        Settler,
        "_bury",
        lambda settler: any(
            not settler._outcomes.has_lease(subject.shard)
            for _, subject in settler._changes.letters.values()
        ),
    ),
    Point(
        "row to try a topic with was gone",
        Reader,
        "_check_probe",
        lambda _, each, found: (
            each.row is not None and found.end != RowPlace(each.row.position, each.row.event_id)
        ),
    ),
    Point(
        "sweep began again while its read was on its way",
        Reader,
        "_note_sweep",
        lambda _, each, *__: not each.is_of_this_sweep,
    ),
    Point(
        "nothing sent, since the database took no deletes",
        Sender,
        "_send",
        lambda of, _: of._state.changes.deletes >= sender.MAX_IN_FLIGHT,
    ),
)
