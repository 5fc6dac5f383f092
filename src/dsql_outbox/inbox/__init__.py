"""For consumers: the effect of each message exactly once, although it is delivered again.

- `inbox` and `async_inbox` run functions and remember their messages in one transaction, on
  connections of their own, or in sessions that `outbox.sessions` lends from an engine or a pool.
  `once` decides the next step of a call. `memory` has the statements that remember messages, also
  in a transaction of the caller. `pruning` forgets old messages, and `prune_run` is its run.
- `received` is a message as a consumer gets it. `broker_messages` reads one from what each
  broker's client gives.
- `sqs_handler` is an AWS Lambda handler for a queue, with partial batch responses.

See docs/inbox.md.

**One message**, ``inbox.once(message, function)``. It is a piece of work, so it goes through the
loop in `dsql_outbox.outbox.unit_of_work`, whose docstring has the steps. `Inbox` has the program
performed in a thread, `AsyncInbox` in a task.

1. `OnceCall` has an `Entry` with the key (consumer, source, id) for each message: one for `once`,
   and those of `once_many`. `program` cuts them into `Batch`es, and each goes through `settle`.
2. `Batch.attempt` has a transaction lent by `on_connection`. `remember_in` sends BEGIN and one
   statement of `memory` in one round trip. It inserts the message's key and, for a message with a
   place in its subject, moves the subject. Several messages take one statement more.
3. If no row comes back, the message was handled before. `_settle_earlier` looks for the id of a
   lost run of this call, so that the caller gets that run's value, else ``Handled(ran=False)``. A
   gap with ``on_gap="raise"`` fails here too. If nothing is left, the transaction is rolled back.
4. `FunctionRun.complete` is the same as in `transact`: handle, functions, verdict, gate, guards,
   COMMIT and its answer. Nothing is stored before COMMIT. `Run.turns` says whose turn it is.
5. After a failure, the budget `INBOX` has the wait. An error of a function is `FATAL`, which no
   budget has: `Batch.decide` fails its message, and goes on with those before and those behind it
   in a `Batch` each. `start_attempt` sets the later messages of its subject aside.
6. After a lost COMMIT nothing is looked up before the next run, so there is no `resolve_doubt`.
   That run's insert meets the rows of the lost one, as in 3, or conflicts with them.
   `record_failure` keeps the results of the lost run.
7. The end of a message is ``Handled(ran=True, ..)`` with the value and the order, or the error,
   with a note if a run is in doubt. Then the broker delivers the message again.

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
