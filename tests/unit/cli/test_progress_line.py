"""The progress where standard error is no terminal."""

import queue
from itertools import chain, repeat

from dsql_outbox.cli.progress_line import lines


def test_a_line_is_printed_when_the_text_has_changed() -> None:
    texts = chain(["idle", "idle", "1 done", "1 done", "2 done"], repeat("2 done"))
    told: queue.Queue[str] = queue.Queue()
    with lines(texts.__next__, every=0.001, tell=told.put):
        assert [told.get(timeout=10), told.get(timeout=10)] == ["1 done", "2 done"]
    assert told.empty()
