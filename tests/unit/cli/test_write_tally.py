"""What the last line of `write` counts, and from where."""

from uuid import uuid4

import pytest

from dsql_outbox.cli.write.report import Tally
from dsql_outbox.observability.facts import WriteEnded
from dsql_outbox.observability.hooks import skips_successes
from dsql_outbox.outbox import Receipt


@pytest.mark.parametrize("is_told", [False, True])
def test_conflicts_are_counted_once_whether_successes_are_told_or_not(is_told: bool) -> None:
    """They are told if another hook wants to know, as one that measures."""
    tally = Tally()
    assert skips_successes(tally)
    for conflicts in (0, 2, 5):
        receipt = Receipt(uuid4(), "committed", conflicts + 1, conflicts, 1, ())
        if is_told:
            tally(WriteEnded(receipt.event_id, "committed", conflicts + 1, conflicts))
        tally.add(receipt)
    tally(WriteEnded(uuid4(), "failed", 4, 3, "SerializationFailure"))
    tally.add_failed(RuntimeError())
    assert (tally.conflicts, tally.stored, tally.retried, tally.failed) == (10, 3, 2, 1)
