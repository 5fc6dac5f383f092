"""Sample events, as real ones are in size. Only the standard library: peers run without ours."""

from uuid import uuid4

EVENT_BYTES = 400
"""The size of a sample event in bytes, as real events have it."""

SUBJECTS = 20_000
"""The number of entities that `sample_events` is about, each in turn."""

_EVENT = (
    '{"eventHeader":{"uuid":"%s","eventName":"Car Moved","eventType":"CarMoved",'
    '"createdDate":"2025-06-01T10:00:00Z"},"entities":[{"entityHeader":'
    '{"entityType":"Car","entityId":"%s"},"n":%d,"note":"~"}]}'
)


def event(subject: str, n: int) -> bytes:
    """One event about one car, as JSON of `EVENT_BYTES` bytes.

    It is made without a JSON encoder, so that making it costs little of the run.
    """
    text = _EVENT % (uuid4(), subject, n)
    return text.replace("~", "x" * (EVENT_BYTES - len(text) + 1)).encode()


def sample_events(first: int, number: int) -> list[bytes]:
    """Events `first` and those after it; no two of any `SUBJECTS` share an entity."""
    return [event(f"CAR-{n % SUBJECTS}", n) for n in range(first, first + number)]
