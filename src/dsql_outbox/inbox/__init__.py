"""For consumers: the effect of each message exactly once, although it is delivered again.

- `inbox` and `async_inbox` run a function and remember its message in one transaction.
  `once` decides the next step of a call, and `pruning` forgets old messages.
- `received` is a message as a consumer gets it. `broker_messages` reads one from what each
  broker's client gives.
- `sqs_handler` is an AWS Lambda handler for a queue, with partial batch responses.

See docs/inbox.md.
"""

from .async_inbox import AsyncInbox
from .broker_messages import from_kafka, from_nats, from_sqs
from .inbox import Inbox
from .once import Handled
from .pruning import Pruned
from .received import Received
from .sqs_handler import sqs_handler

__all__ = [
    "AsyncInbox",
    "Handled",
    "Inbox",
    "Pruned",
    "Received",
    "from_kafka",
    "from_nats",
    "from_sqs",
    "sqs_handler",
]
