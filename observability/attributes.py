"""The name and the meaning of every span attribute.

Names that begin with ``outbox.`` are ours; the others are OpenTelemetry's
semantic conventions (https://opentelemetry.io/docs/specs/semconv/). No attribute
holds a payload, an entity id or a password.
"""

from typing import Final

EVENT_ID: Final = "outbox.event.id"
"""The event's UUID."""

EVENT_NAME: Final = "outbox.event.name"
"""The event's name, such as ``Loan Created``."""

EVENT_TYPE: Final = "outbox.event.type"
"""The event's type, such as ``LoanCreated``."""

EVENT_ENTITIES: Final = "outbox.event.entities"
"""How many entities the event touches."""

TOPIC: Final = "outbox.topic"
"""The topic that the outbox row names."""

WRITE_STATUS: Final = "outbox.write.status"
"""How the write ended: ``committed``, ``duplicate``, ``failed`` or ``unknown``."""

WRITE_ATTEMPTS: Final = "outbox.write.attempts"
"""How many attempts the write took."""

WRITE_CONFLICTS: Final = "outbox.write.conflicts"
"""How many of the write's attempts ended in a conflict."""

WRITE_EXHAUSTED: Final = "outbox.write.exhausted"
"""True if the write failed because its retries ran out."""

ATTEMPT_NUMBER: Final = "outbox.attempt.number"
"""The attempt's number, from 1."""

ATTEMPT_WAITED: Final = "outbox.attempt.waited_s"
"""Seconds waited between the failure of the previous attempt and this one; not on the first."""

ATTEMPT_OUTCOME: Final = "outbox.attempt.outcome"
"""How the attempt ended: ``committed``, ``conflict``, ``in_doubt``, ``resolved`` or ``failed``."""

ATTEMPT_OC_CLASS: Final = "outbox.attempt.oc_class"
"""Aurora DSQL's class of the conflict: ``OC000`` (data) or ``OC001`` (schema)."""

ATTEMPT_ENTITIES: Final = "outbox.attempt.entities"
"""The entities of a conflict, at most 16, as ``TYPE/ID`` with commas between them."""

BATCH_EVENTS: Final = "outbox.batch.events"
"""How many events the transaction wrote, each of another caller."""

BATCH_OUTCOME: Final = "outbox.batch.outcome"
"""How the transaction ended, with the values of `ATTEMPT_OUTCOME`."""

PUBLISH_ATTEMPT: Final = "outbox.publish.attempt"
"""How many times the message has been sent, including this time and before a restart."""

PUBLISH_LEADS_TO: Final = "outbox.publish.leads_to"
"""What follows if the message was not delivered: ``retry``, ``dead_letter`` or ``block``."""

PUBLISH_RESULT: Final = "outbox.publish.result"
"""The result: ``delivered``, ``retry``, ``rejected``, ``unavailable``, ``deferred`` or
``not_attempted``."""

DB_SYSTEM: Final = "db.system.name"
"""Always ``postgresql``, because Aurora DSQL uses its protocol."""

DB_NAMESPACE: Final = "db.namespace"
"""The database and the schema of the outbox tables, such as ``postgres.outbox``."""

SERVER_ADDRESS: Final = "server.address"
"""The host of the database or of the broker, as its URL names it."""

SERVER_PORT: Final = "server.port"
"""The port of the database or of the broker."""

DB_STATUS_CODE: Final = "db.response.status_code"
"""The SQLSTATE of the attempt's error."""

ERROR_TYPE: Final = "error.type"
"""For a write or an attempt, the exception's type; for a failed publish, its result."""

MESSAGING_SYSTEM: Final = "messaging.system"
"""The broker's kind, such as ``nats``."""

MESSAGING_DESTINATION: Final = "messaging.destination.name"
"""The queue, topic or bus to which the message is sent."""

MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
"""Always ``publish``."""

MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
"""Always ``send``: the current conventions use it for ``publish``."""

MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
"""The event's UUID."""

MESSAGING_BODY_SIZE: Final = "messaging.message.body.size"
"""The payload's size in bytes."""
