"""Defects that only a relay with pages can have: the judge must find each of them."""

# ruff: noqa: SLF001 - a defect is planted inside

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from types import SimpleNamespace
from typing import Any, Final, cast
from unittest.mock import patch

from dsql_outbox.publisher.relay.memory import paging, queues
from dsql_outbox.publisher.relay.memory.pages import Page, Part
from dsql_outbox.publisher.relay.memory.queues import Queues
from dsql_outbox.publisher.relay.memory.rows import Rows
from dsql_outbox.publisher.relay.memory.subjects import Shard, Subject
from dsql_outbox.publisher.relay.memory.topics import TopicPauses
from dsql_outbox.publisher.relay.sender import Sender
from dsql_outbox.publisher.relay.settler import Settler
from dsql_outbox.schema.outbox_rows import OutboxRow, RawRow, RowId

from .named_defects import defects_of


def keep_a_run_in_its_page() -> AbstractContextManager[Any]:
    """A later row of a subject does not take the earlier ones out of their page."""
    return patch.object(Queues, "take_out_of", lambda *_: None)


def forget_a_run_early() -> AbstractContextManager[Any]:
    """A subject counts as in no page as soon as the first row of its run is delivered."""
    return patch.object(Page, "ends_run", lambda *_: True)


def cut_a_run_in_two() -> AbstractContextManager[Any]:
    """A page is cut between two rows of a subject."""
    right = Page.cut

    def cut(page: Page, most: int) -> Page | None:
        page.keys = [f"{number} {key}" for number, key in enumerate(page.keys)]
        first = right(page, most)
        for each in filter(None, (first, page)):
            each.keys = [key.partition(" ")[2] for key in each.keys]
        return first

    return patch.object(Page, "cut", cut)


def page_beside_a_queue() -> AbstractContextManager[Any]:
    """A row comes into a page though its subject has rows elsewhere, or a failed one."""
    right = paging.pages_of

    def pages_of(shard: Shard, found: Sequence[RawRow], *others: Any) -> Any:
        with patch.object(shard, "subjects", {}):
            return right(shard, found, *others)

    return patch.object(queues, "pages_of", pages_of)


def page_beside_a_page() -> AbstractContextManager[Any]:
    """A row comes into a page though its subject is in another one."""
    right = paging.pages_of

    def pages_of(shard: Shard, found: Sequence[RawRow], rows: Rows, _: object, paused: Any) -> Any:
        return right(shard, found, rows, (), paused)

    return patch.object(queues, "pages_of", pages_of)


def know_no_row_of_a_page() -> AbstractContextManager[Any]:
    """A read brings rows again that are in a page."""
    right = Rows.know

    def know(rows: Rows, of: OutboxRow | Part) -> None:
        if not isinstance(of, Part):
            right(rows, of)

    return patch.object(Rows, "know", know)


def forget_a_deleted_page() -> AbstractContextManager[Any]:
    """Rows of a page are forgotten once they are deleted, though an older snapshot has them."""
    right = Rows.move

    def move(rows: Rows, of: OutboxRow | Part, to: Any) -> None:
        right(rows, of, to)
        if to == "settled" and isinstance(of, Part):
            rows.forget(of)

    return patch.object(Rows, "move", move)


def take_out_what_is_delivered() -> AbstractContextManager[Any]:
    """A row that is delivered, and not in the books yet, leaves its page with its run."""
    right = Page.run

    def run(page: Page, at: int) -> range:
        found = right(page, at)
        first = found.start
        while first and first - 1 in page.answered and page.keys[first - 1] == page.keys[at]:
            first -= 1
        return range(first, found.stop)

    return patch.object(Page, "run", run)


def go_on_behind_a_failure_in_a_page() -> AbstractContextManager[Any]:
    """A row that fails leaves its page alone, and the rows behind it go on."""
    right = Page.run

    def run(page: Page, at: int) -> range:
        found = right(page, at)
        return found if page.waits else found[:1]

    return patch.object(Page, "run", run)


def send_what_left_its_page_again() -> AbstractContextManager[Any]:
    """A run that leaves its page on its way waits, and is sent a second time."""
    right = Queues.take_out

    def take_out(of: Queues, page: Page, at: int) -> Subject | None:
        subject = right(of, page, at)
        if subject is not None and subject.busy and page.stages[at] != 0:
            of.requeue(subject, 0)
            of._make_ready(subject)
        return subject

    return patch.object(Queues, "take_out", take_out)


def send_pages_without_a_fence() -> AbstractContextManager[Any]:
    """A page is sent though the lease of its shard is over."""
    right = Sender._take

    def take(sender: Sender, most: int, free: int) -> Any:
        of, topics = sender._state.queues, sender._state.topics
        right_take = of.take

        def take_any(most: int, *, may_send: Callable[[Any], int], **others: Any) -> Any:
            def asks(each: Subject | Page) -> int:
                if isinstance(each, Page) and not topics.is_paused(each.topic):
                    return 1
                return may_send(each)

            return right_take(most, may_send=asks, **others)

        with patch.object(of, "take", take_any):
            return right(sender, most, free)

    return patch.object(Sender, "_take", take)


def send_paused_pages() -> AbstractContextManager[Any]:
    """A page is sent though its topic is paused."""
    return patch.object(TopicPauses, "is_paused", lambda *_: False)


def send_any_run_of_a_page() -> AbstractContextManager[Any]:
    """A page is sent as it is to a sink that takes no runs, or shorter ones."""
    right = Queues.break_up

    def break_up(of: Queues, page: Page, longest: int = 0) -> None:
        if not longest:
            right(of, page, longest)

    return patch.object(Queues, "break_up", break_up)


def keep_a_lost_page_that_waits() -> AbstractContextManager[Any]:
    """A page that waits stays in memory though its shard was lost."""
    right = Queues.forget_shard

    def forget_shard(of: Queues, shard: Shard) -> None:
        paged = of.pages[shard]
        of.pages[shard] = {key: page for key, page in paged.items() if not page.waits}
        right(of, shard)

    return patch.object(Queues, "forget_shard", forget_shard)


def delete_a_page_with_a_failure() -> AbstractContextManager[Any]:
    """All rows of a page are deleted, also those that failed."""
    right = Settler._delete

    async def delete(settler: Settler) -> None:
        pages = {part.page for part in settler._changes.parts}
        store = settler._store

        async def of_pages(rows: Collection[RowId]) -> int:
            return await store.delete([*rows, *chain.from_iterable(page.ids for page in pages)])

        settler._store = cast("Any", SimpleNamespace(delete=of_pages))
        try:
            await right(settler)
        finally:
            settler._store = store

    return patch.object(Settler, "_delete", delete)


PAGE_DEFECTS: Final = defects_of(__name__)
"""Each defect by its name."""
