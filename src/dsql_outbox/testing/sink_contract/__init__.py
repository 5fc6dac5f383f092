"""The contract suite for sinks: the rules for every sink and every broker.

Subclass `SinkContract` in a test file and give it a fixture ``broker``: a `ReadableBroker`
that opens your sink and reads back what arrived (docs/writing-a-sink.md). The other names are
helpers for your own tests. This package needs pytest.

`sink_checks` has the rules, `readable_broker` what you give, and `sent_messages` sends as the relay
does.
"""

import pytest

pytest.register_assert_rewrite(f"{__name__}.sink_checks", f"{__name__}.sent_messages")

from .readable_broker import Before, OpenStage, ReadableBroker, Stage, Stored  # noqa: E402
from .sent_messages import Answers, Sent, deliver, in_order, new_message, published  # noqa: E402
from .sink_checks import SinkContract  # noqa: E402 - pytest rewrites its assertions

__all__ = [
    "Answers",
    "Before",
    "OpenStage",
    "ReadableBroker",
    "Sent",
    "SinkContract",
    "Stage",
    "Stored",
    "deliver",
    "in_order",
    "new_message",
    "published",
]
