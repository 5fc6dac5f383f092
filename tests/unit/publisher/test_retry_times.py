"""When failed rows are tried again: by the time, and not while they are on their way."""

from uuid import UUID

from dsql_outbox.publisher.relay.memory.retry_times import RetryTimes
from dsql_outbox.publisher.relay.memory.subjects import Hold, Shard, Subject
from dsql_outbox.schema.outbox_rows import OutboxRow, RowId

ROW = RowId(0, 7, str(UUID(int=7)))


def held(times: RetryTimes, retry_at: float) -> Subject:
    """A subject that a failed row holds back."""
    subject = Shard(0, 1).subject("Car/a", "Car", "a")
    subject.holds.append(Hold(ROW, 1, retry_at))
    times.add(subject, subject.holds[0])
    return subject


def row() -> OutboxRow:
    """The failed row."""
    return OutboxRow(*ROW, 0, "Car", "a", 1, "t", "{}", "{}", 0, predecessor=False)


def test_a_failed_row_is_due_at_its_time_and_once() -> None:
    times = RetryTimes()
    subject = held(times, 5.0)
    assert times.take_due(4.9, 10, 0) == []
    assert times.seconds_left(4.0) == 1.0
    assert times.take_due(5.0, 10, 0) == [subject]
    assert times.take_due(5.0, 10, 0) == []


def test_a_row_that_a_scan_has_found_already_is_not_asked_for() -> None:
    times = RetryTimes()
    held(times, 5.0).rows.append(row())
    assert times.take_due(6.0, 10, 0) == []


def test_a_blocked_row_is_never_due() -> None:
    times = RetryTimes()
    held(times, float("inf"))
    assert times.seconds_left(0.0) == float("inf")
