"""For an operator or a schedule: messages that were not delivered, targets, status, stored data.

- `tool` is the base of all, and the row that records what one did; `operations` reads those rows.
- `run` is what each long verb returns, and `pages` the loop of those that change rows: pages under
  a fence. `pace` says how fast: a rate, or what others leave.
- `messages`: `Messages`, whose verbs are find, retry, drop and replay.
- `selection` says which messages; `undelivered` is their one type, and reads them. `letter_groups`
  counts the dead ones by error.
- `topic_pauses`: topics whose messages wait until an operator resumes them.
- `targets` opens and drops targets, and `fills` gives a new one the stored events.
- `replay`: stored events that are to be sent again; `event_pages` selects and reads them, and
  `stored_event` reads what their rows say of touches and headers.
- `retry`: failing messages forget their failure, and dead ones are sent again; `letters` reads
  these by key. `drop` gives messages up.
- `requeue` puts messages into the outbox again, for a retry of dead messages and for a replay.
  `replay_positions` gives them their positions.
- `status`, `health` and `health_probe` say how the outbox does, and `attention` what needs an
  operator first; `records` reads stored events by
  key, and `whereabouts` says where their messages are.
- `operator_commands` are the commands to copy, and `jaeger_page` the links to traces.
- `life/` forgets and erases stored events, and `verification/` compares them.

Nothing here imports the relay: operators and publishers share the tables.
"""

from dsql_outbox.operations.life.erasures import Erasures
from dsql_outbox.operations.life.retention import Retention
from dsql_outbox.operations.verification.verifier import Verifier

from .health import Health
from .health_probe import HealthProbe
from .messages import Messages
from .operations import Operations
from .records import Records
from .selection import Selection
from .status import StatusReader
from .targets import Targets
from .topic_pauses import Topics

__all__ = [
    "Erasures",
    "Health",
    "HealthProbe",
    "Messages",
    "Operations",
    "Records",
    "Retention",
    "Selection",
    "StatusReader",
    "Targets",
    "Topics",
    "Verifier",
]
