"""Errors: one base, the driver's and Python's classes where callers catch them, no secrets."""

import copy
import inspect
import pickle
from collections.abc import Callable
from uuid import UUID

import pytest

from dsql_outbox.outbox import (
    DuplicateEvent,
    EventTooLarge,
    InvalidEvent,
    JobRefused,
    MessageGap,
    MessageSetAside,
    MissingExtra,
    MissingRight,
    OutboxError,
    OutcomeUnknown,
    SchemaError,
    SettingsError,
    SinkUnavailable,
    StaleVersion,
    TransactionMisused,
    UnreadableMessage,
    WriterClosed,
)
from dsql_outbox.outbox import errors as module

ID = UUID("0b6f3c1e-7a52-4d0e-9c41-5f2f8d3a1101")


def test_every_error_has_one_base_and_says_what_it_means() -> None:
    found = [
        c
        for _, c in inspect.getmembers(module, inspect.isclass)
        if c.__module__.endswith(".errors")
    ]
    assert len(found) == 17
    assert all(issubclass(c, OutboxError) and c.__doc__ for c in found)


@pytest.mark.parametrize(
    ("error", "python"),
    [
        (SettingsError, ValueError),
        (InvalidEvent, ValueError),
        (EventTooLarge, InvalidEvent),
        (MissingExtra, ImportError),
        (TransactionMisused, RuntimeError),
    ],
)
def test_an_error_is_also_what_python_calls_it(error: type, python: type) -> None:
    assert issubclass(error, python)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            MissingExtra("nats", "a nats:// sink"),
            "a nats:// sink needs the extra [nats]: pip install 'dsql-outbox[nats]'",
        ),
        (
            InvalidEvent("entities[0].entityHeader.entityId", "must not be empty"),
            "entities[0].entityHeader.entityId: must not be empty",
        ),
        (InvalidEvent("", "is not UTF-8 at byte 3"), "is not UTF-8 at byte 3"),
        (EventTooLarge(9, 8), "event of 9 bytes is over the limit of 8 bytes"),
        (
            DuplicateEvent(ID, same_content=True),
            f"event {ID} was stored before, with the same content",
        ),
        (
            DuplicateEvent(ID, same_content=False),
            f"event {ID} was stored before, with different content",
        ),
        (
            StaleVersion(ID, expected=3, actual=5),
            f"event {ID} expects its subject at version 3, it is at 5",
        ),
        (
            OutcomeUnknown(ID),
            (
                f"event {ID} may or may not be stored: the connection was lost at the commit; "
                "write it again with the same id"
            ),
        ),
        (WriterClosed(), "the writer is closed, so nothing was sent: make another Writer"),
        (
            UnreadableMessage("position", "it is not a number"),
            "the received message has no valid position: it is not a number",
        ),
        (
            MessageGap("Car/CAR-1", expected=7, actual=5),
            (
                "a message of Car/CAR-1 follows position 7, but the last one handled has position "
                '5: leave it to the broker to deliver it again, or call once with on_gap="run", as '
                "behind a publisher whose map skips messages"
            ),
        ),
        (JobRefused("target lake is filling"), "target lake is filling: try again later"),
        (SchemaError("no tables"), "no tables"),
        (SinkUnavailable("no broker"), "no broker"),
    ],
)
def test_the_text_names_the_thing_and_what_to_do(error: OutboxError, text: str) -> None:
    assert str(error) == text


def test_what_a_caller_decides_by_is_an_attribute() -> None:
    assert EventTooLarge(9, 8).size == 9
    assert EventTooLarge(9, 8).limit == 8
    assert DuplicateEvent(ID, same_content=True).same_content
    assert OutcomeUnknown(ID).event_id == DuplicateEvent(ID, same_content=True).event_id == ID
    assert MissingExtra("nats", "x").extra == "nats"
    assert InvalidEvent("a", "b").path == "a"


ERRORS = [
    OutboxError("text"),
    SettingsError("text"),
    MissingExtra("nats", "a nats:// sink", instead="an own sink"),
    MissingRight("permission denied for table outbox", "dsql-outbox schema grant --writer shop"),
    SchemaError("text"),
    InvalidEvent("entities[0]", "must not be empty"),
    EventTooLarge(9, 8, what="message"),
    DuplicateEvent(ID, same_content=True),
    StaleVersion(ID, expected=3, actual=5),
    OutcomeUnknown(ID),
    TransactionMisused("text"),
    WriterClosed(),
    SinkUnavailable("text"),
    UnreadableMessage("position", "it is not a number"),
    MessageGap("Car/CAR-1", expected=7, actual=5),
    MessageSetAside("Car/CAR-1"),
    JobRefused("the job erase of a runs"),
]
"""One of each class."""


def copied(error: OutboxError) -> object:
    return copy.copy(error)


def deep_copied(error: OutboxError) -> object:
    return copy.deepcopy(error)


def pickled(error: OutboxError) -> object:
    return pickle.loads(pickle.dumps(error))


def test_every_error_has_an_example() -> None:
    found = {c for _, c in inspect.getmembers(module, inspect.isclass) if issubclass(c, Exception)}
    assert {type(error) for error in ERRORS} == found


@pytest.mark.parametrize("again", [copied, deep_copied, pickled])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_goes_to_another_process(
    error: OutboxError, again: Callable[[OutboxError], object]
) -> None:
    error.add_note("seen in a worker")
    found = again(error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert isinstance(found, OutboxError)
    assert found.args == error.args
    assert found.__dict__ == error.__dict__
