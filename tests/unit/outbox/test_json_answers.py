"""Receipts, stored events and errors as JSON: by `json`, by pydantic, and as a schema."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

import dsql_outbox
from dsql_outbox import (
    DuplicateEvent,
    EventTooLarge,
    InvalidEvent,
    MissingExtra,
    OutboxError,
    OutcomeUnknown,
    Receipt,
    StaleVersion,
    StoredEvent,
    Touched,
    WriterClosed,
)

ID = UUID("0b6f3c1e-7a52-4d0e-9c41-5f2f8d3a1101")
DATE = datetime(2026, 11, 25, 8, tzinfo=UTC)

RECEIPT = Receipt(ID, "committed", 2, 1, 1_795_629_600_000_000, (Touched("Car", "C-1", 3),))
STORED = StoredEvent(ID, 3, "Car Bought", "CarBought", None, DATE, '{"a": 1}')

JSON: dict[str, tuple[Any, dict[str, Any]]] = {
    "receipt": (
        RECEIPT,
        {
            "eventId": str(ID),
            "status": "committed",
            "attempts": 2,
            "conflicts": 1,
            "position": 1_795_629_600_000_000,
            "entities": [{"entityType": "Car", "entityId": "C-1", "version": 3}],
        },
    ),
    "stored event": (
        STORED,
        {
            "eventId": str(ID),
            "version": 3,
            "eventName": "Car Bought",
            "eventType": "CarBought",
            "createdDate": None,
            "savedDate": "2026-11-25T08:00:00Z",
            "data": '{"a": 1}',
        },
    ),
}


@pytest.mark.parametrize("name", JSON)
def test_an_answer_is_the_same_json_by_every_way(name: str) -> None:
    answer, wire = JSON[name]
    adapter: TypeAdapter[Any] = TypeAdapter(type(answer))
    assert json.loads(json.dumps(answer.to_dict())) == wire
    assert json.loads(json.dumps(dict(answer))) == wire
    assert json.loads(adapter.dump_json(answer)) == adapter.dump_python(answer, mode="json") == wire


@pytest.mark.parametrize("name", JSON)
def test_an_answer_is_read_again_by_pydantic(name: str) -> None:
    answer, wire = JSON[name]
    adapter: TypeAdapter[Any] = TypeAdapter(type(answer))
    assert adapter.validate_json(json.dumps(wire)) == adapter.validate_python(wire) == answer
    assert adapter.validate_python(answer) is answer
    with pytest.raises(ValidationError, match="eventId"):
        adapter.validate_python({k: v for k, v in wire.items() if k != "eventId"})


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_the_schema_has_the_fields_of_the_json(name: str, mode: Any) -> None:
    answer, wire = JSON[name]
    schema = TypeAdapter(type(answer)).json_schema(mode=mode)
    assert schema["title"] == type(answer).__name__
    assert schema["required"] == list(schema["properties"]) == list(wire)
    assert schema["properties"]["eventId"]["format"] == "uuid"


def test_a_receipt_is_a_field_of_a_model() -> None:
    class Ordered(BaseModel):
        receipt: Receipt

    ordered = Ordered(receipt=RECEIPT)
    assert Ordered.model_validate_json(ordered.model_dump_json()) == ordered


ERRORS: dict[str, tuple[OutboxError, str, dict[str, Any]]] = {
    "invalid": (
        InvalidEvent("a.b", "is no c"),
        "Invalid event",
        {"path": "a.b", "rule": "is no c"},
    ),
    "too large": (EventTooLarge(9, 5), "Event too large", {"path": "", "size": 9, "limit": 5}),
    "duplicate": (
        DuplicateEvent(ID, same_content=False),
        "Duplicate event",
        {"eventId": str(ID), "sameContent": False},
    ),
    "stale": (
        StaleVersion(ID, expected=1, actual=2),
        "Stale version",
        {"eventId": str(ID), "expected": 1, "actual": 2},
    ),
    "unknown": (OutcomeUnknown(ID), "Outcome unknown", {"eventId": str(ID)}),
    "closed": (WriterClosed(), "Writer closed", {}),
    "extra": (MissingExtra("nats", "the sink"), "Missing extra", {"extra": "nats"}),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_problem_details_with_its_attributes(name: str) -> None:
    error, title, members = ERRORS[name]
    error.add_note("a note is no member")
    problem = error.to_dict()
    assert problem["type"] == f"urn:dsql-outbox:{type(error).__name__}"
    assert problem["title"] == title
    assert problem["detail"] == str(error)
    assert members.items() <= problem.items()
    assert not [member for member in problem if member.startswith("_")]
    assert json.loads(json.dumps(problem)) == problem
    assert json.loads(TypeAdapter(type(error)).dump_json(error)) == problem


def test_every_error_has_a_schema_of_problem_details() -> None:
    kinds = [getattr(dsql_outbox, name) for name in dsql_outbox.__all__]
    errors = [k for k in kinds if isinstance(k, type) and issubclass(k, OutboxError)]
    assert len(errors) > 5
    for error in errors:
        schema = TypeAdapter(error).json_schema(mode="serialization")
        assert schema["required"] == ["type", "title", "detail"]
        assert schema["title"] == error.__name__


def test_outcomes_of_many_writes_are_one_answer() -> None:
    adapter = TypeAdapter(list[Receipt | OutboxError])
    outcomes: list[Receipt | OutboxError] = [RECEIPT, DuplicateEvent(ID, same_content=True)]
    assert json.loads(adapter.dump_json(outcomes)) == json.loads(
        json.dumps([outcome.to_dict() for outcome in outcomes])
    )
