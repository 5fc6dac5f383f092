"""For consumers: the effect of each message exactly once, although it is delivered again.

- `inbox` and `async_inbox` run a function and remember its message in one transaction.
  `once` decides the next step of a call. `memory` is the statement that remembers a message, also
  in a transaction of the caller. `pruning` forgets old messages, and `prune_run` is its run.
- `received` is a message as a consumer gets it. `broker_messages` reads one from what each
  broker's client gives.
- `sqs_handler` is an AWS Lambda handler for a queue, with partial batch responses.

See docs/inbox.md.

**One message**, ``inbox.once(message, function)``. It is a piece of work, so it goes through the
loop in `dsql_outbox.outbox.unit_of_work`, whose docstring has the steps. `Inbox` has the program
performed in a thread, `AsyncInbox` in a task.

1. `once_call` makes the key (consumer, source, id) and an `OnceCall`. Its `program` goes through
   `settle`.
2. `OnceCall.attempt` takes a connection by `on_connection`. `_begin` sends BEGIN and one statement
   of `memory` in one round trip. It inserts the message's key and, for a message with a place in
   its subject, moves the subject.
3. If no row comes back, the message was handled before. `_earlier_result` looks for the id of a
   lost run of this call, so that the caller gets that run's value, else ``Handled(ran=False)``. A
   gap with ``on_gap="raise"`` ends the call here too. Both roll back.
4. `FunctionRun.complete` is the same as in `transact`: handle, function, verdict, gate, guards,
   COMMIT and its answer. Nothing is stored before COMMIT.
5. After a failure, the budget `INBOX` has the wait. The function's own error is `FATAL`, which no
   budget has.
6. After a lost COMMIT nothing is looked up before the next run, so there is no `resolve_doubt`.
   That run's insert meets the row of the lost one, as in 3, or conflicts with it. `record_failure`
   keeps the result of the lost run.
7. The end is ``Handled(ran=True, ..)`` with the value and the order, or the error, with a note if a
   run is in doubt. Then the broker delivers the message again.

**One remember**, ``inbox.remember(session, message)``. `memory.remember` sends the same statement
in the session of the caller, which is a `CallerSession` (`outbox.sessions`), as `append_to` does.
After any error `refuse_commit` keeps the transaction from its COMMIT.
"""

from .async_inbox import AsyncInbox
from .broker_messages import from_kafka, from_nats, from_rabbitmq, from_redis, from_sqs
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
    "from_rabbitmq",
    "from_redis",
    "from_sqs",
    "sqs_handler",
]
