"""The gate of a call: how long work beside a settled call may take."""

import pytest
from tests.support.clock import Clock

from dsql_outbox.outbox import Gate
from dsql_outbox.outbox.unit_of_work import gate


def test_work_aside_ends_within_a_second_and_not_after_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(gate, "monotonic", clock)
    assert Gate(None).deadline_aside == clock.now + 1.0
    assert Gate(0.2).deadline_aside == clock.now + 0.2
    assert Gate(20.0).deadline_aside == clock.now + 1.0
