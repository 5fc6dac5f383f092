"""How a row ends, and what that means for a topic that is tried with it."""

from collections.abc import Callable

import pytest
from tests.support.publisher.given_rows import row

from dsql_outbox.publisher import PublisherSettings
from dsql_outbox.publisher.relay.memory.subjects import Shard, Subject
from dsql_outbox.publisher.relay.outcomes import Outcomes
from dsql_outbox.publisher.relay.state import RelayState
from dsql_outbox.publisher.sinks import Retry

LATER = 3_600.0

ENDS: dict[str, Callable[[Outcomes, Subject], None]] = {
    "the map leaves it out": Outcomes.skip,
    "the map fails for it": lambda outcomes, subject: outcomes.fail(subject, Retry("no")),
    "the sink does not attempt it": Outcomes.rest,
    "the map is too late for it": Outcomes.give_back,
    "its shard is lost": Outcomes.give_back,
}


class Lasting:
    """Leases that last."""

    def has_lease(self, _shard: int, _epoch: int) -> bool:
        return True


@pytest.mark.parametrize("end", ENDS)
def test_a_topic_is_tried_with_another_row_if_no_broker_has_judged_the_first(end: str) -> None:
    now = [0.0]
    state = RelayState(lambda: now[0])
    outcomes = Outcomes(state, PublisherSettings(), Lasting())  # type: ignore[arg-type]
    first, other = row("a", 1, topic="sick"), row("b", 2, topic="sick")
    state.topics.pause(first, 0.0)
    now[0] = LATER
    shard = Shard(0, 1)
    state.queues.admit(shard, [first], LATER, state.topics, None)

    def may_send(subject: Subject) -> int:
        state.topics.note_sent(subject.rows[0])
        return 1

    (subject,) = state.queues.take(1, free=10, of=10, may_send=may_send)
    assert state.topics.passed_over(LATER) == {"sick"}, "while a row is on its way"
    if end == "its shard is lost":
        state.queues.forget_shard(shard)
    ENDS[end](outcomes, subject)
    assert state.topics.passed_over(LATER) == set()
    assert state.topics.takes(other, LATER)
