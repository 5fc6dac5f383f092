"""What is an event, and that it stays exactly as it was received."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.support.checkout import ROOT

from dsql_outbox.outbox import Entity, Event, InvalidEvent
from dsql_outbox.outbox.event.event_parser import MAX_ENTITIES, ParsedEvent, parse_event
from dsql_outbox.outbox.settings import MAX_NAME

SAMPLES = ROOT / "tests" / "data" / "events"
OLDER = SAMPLES / "loan-created-older-form.json"
ID = "0b6f3c1e-7a52-4d0e-9c41-5f2f8d3a1101"

Json = dict[str, Any]


def touch(entity_id: object = "CAR-1", **attributes: object) -> Json:
    header = {"entityId": entity_id, "entityType": "Car"}
    return {"entityHeader": header, "vin": "WVWZZZ1KZ8W386752", **attributes}


def event(*touches: object, **header: object) -> Json:
    """A valid event, unless its arguments say otherwise; None leaves a header field out."""
    fields = {"uuid": ID, "eventName": "Car Created", "eventType": "CarCreated", **header}
    kept = {k: v for k, v in fields.items() if v is not None}
    return {"eventHeader": kept, "entities": list(touches) or [touch()]}


def nested(depth: int) -> str:
    return json.dumps(event(touch(a=0))).replace('"a": 0', f'"a": {"[" * depth}{"]" * depth}')


# What is accepted, and that it stays as it is.


@pytest.mark.parametrize(
    ("file", "kind", "subject"),
    [
        ("car-created.json", "CarCreated", ("Car", "CAR-N-0417")),
        ("car-service-done.json", "CarServiceDone", ("ServiceRecord", "SERVICE-N-0718")),
        ("loan-created.json", "LoanCreated", ("Loan", "LOAN-N-0093")),
        ("loan-payment-submitted.json", "LoanPaymentSubmitted", ("LoanPayment", "PAYMENT-N-2210")),
    ],
)
def test_a_sample_is_read(file: str, kind: str, subject: tuple[str, str]) -> None:
    text = (SAMPLES / file).read_text()
    parsed, wire = parse_event(text), json.loads(text)
    (only,) = parsed.touches
    assert (parsed.type, parsed.name) == (kind, wire["eventHeader"]["eventName"])
    assert (only.entity_type, only.entity_id) == subject
    header = wire["entities"][0].pop("entityHeader")
    assert json.loads(only.attributes) == wire["entities"][0]
    assert json.loads(only.header) == {"eventHeader": wire["eventHeader"], "entityHeader": header}


def test_the_older_form_is_read_with_its_attributes_as_they_stand() -> None:
    text = OLDER.read_text()
    parsed = parse_event(text)
    loan, car = parsed.touches
    assert (parsed.id, parsed.type) == (UUID("0b6f3c1e-7a52-4d0e-9c41-5f2f8d3a1105"), "LoanCreated")
    assert (loan.entity_type, loan.entity_id) == ("Loan", "LOAN-N-0051")
    assert (car.entity_type, car.entity_id) == ("Car", "CAR-N-0208")
    assert loan.attributes in text
    assert json.loads(car.attributes) == {"id": "CAR-N-0208", "totalBalance": 9000.0}
    assert json.loads(car.header)["entityHeader"] == {
        "entityType": "Car",
        "entityId": "CAR-N-0208",
    }


def test_an_entity_of_the_older_form_may_have_no_attributes() -> None:
    older = {"eventHeader": event()["eventHeader"]}
    older |= {"eventBody": {"entities": [{"entityType": "Car", "entityId": "1"}]}}
    assert parse_event(older).touches[0].attributes == "{}"


def test_entities_win_when_both_forms_are_there() -> None:
    parsed = parse_event(event(touch("new")) | {"eventBody": 5})
    assert parsed.touches[0].entity_id == "new"


EXACT = {
    "compact": json.dumps(event(), separators=(",", ":")),
    "pretty": json.dumps(event(), indent=4),
    "blanks around": f"\r\n\t {json.dumps(event())} \n",
    "unicode": json.dumps(event(touch(city="Zürich 車 🚗")), ensure_ascii=False),
    "escaped unicode": json.dumps(event(touch(city="Zürich 車 🚗"))),
    "escaped NUL": json.dumps(event(touch(text="a\0b"))),
    "big number": json.dumps(event(touch(n=0))).replace('"n": 0', '"n": 1e200000'),
    "long number": json.dumps(event(touch(n=0))).replace('"n": 0', f'"n": {"7" * 5000}'),
    "minus zero": json.dumps(event(touch(n=0))).replace('"n": 0', '"n": -0.00'),
    "duplicate keys": json.dumps(event(touch(n=0))).replace('"n": 0', '"n": {"k": 1, "k": 2}'),
    "unknown fields": json.dumps(event(source="mobile") | {"extra": [1]}),
    "deep": nested(200),
}


@pytest.mark.parametrize("name", EXACT)
def test_text_stays_exactly_as_received(name: str) -> None:
    text = EXACT[name]
    from_text, from_bytes = parse_event(text), parse_event(text.encode())
    assert from_text.data == from_bytes.data == text
    assert from_text == from_bytes


@pytest.mark.parametrize("name", EXACT)
def test_values_of_attributes_stay_exactly_as_received(name: str) -> None:
    (only,) = parse_event(EXACT[name]).touches
    assert '"WVWZZZ1KZ8W386752"' in only.attributes
    for value in ("1e200000", "7" * 5000, "-0.00", '{"k": 1, "k": 2}', r"a\u0000b", r"\ud83d"):
        assert (value in only.attributes) == (value in EXACT[name])


def test_of_two_attributes_with_one_name_the_last_is_the_state_and_the_event_keeps_both() -> None:
    text = json.dumps(event(touch(n=0))).replace('"n": 0', '"n": 1, "n": 2')
    parsed = parse_event(text)
    assert json.loads(parsed.touches[0].attributes)["n"] == 2
    assert '"n": 1, "n": 2' in parsed.data


def test_an_event_object_is_encoded_once() -> None:
    made = Event.new("CarCreated", [Entity("Car", "CAR-1", {"color": "grün"})])
    parsed = parse_event(made)
    assert parsed.data.encode() == made.to_json()
    assert parsed == parse_event(made.to_json())
    assert (parsed.id, parsed.touches[0].entity_id) == (made.id, "CAR-1")


@pytest.mark.parametrize("created", [None, datetime(2026, 7, 1, 12, tzinfo=UTC)])
def test_the_same_arguments_make_the_same_event(created: datetime | None) -> None:
    """So a call that is repeated with its id is told from another event with that id."""

    def made() -> Event:
        return Event.new("A", [Entity("Car", "1")], id=UUID(ID), created_date=created)

    assert made().to_json() == made().to_json()
    assert parse_event(made()).fingerprint == parse_event(made()).fingerprint
    assert parse_event(made()).id == UUID(ID)
    dates = re.findall(r'"(?:created|saved|updated)(?:Date|At)":"(.*?)"', made().to_json().decode())
    assert dates == ([] if created is None else ["2026-07-01T12:00:00.000+00:00"] * 4)


@pytest.mark.parametrize("kind", [dict, MappingProxyType])
def test_a_mapping_is_encoded_as_json(kind: Callable[[Json], Any]) -> None:
    assert parse_event(kind(event())).data.encode() == msgspec.json.encode(event())


def test_a_missing_type_is_the_name_without_blanks() -> None:
    assert parse_event(event(eventName="Car Service Done", eventType=None)).type == "CarServiceDone"


def test_the_longest_ids_and_names_are_taken() -> None:
    entity = {"entityHeader": {"entityId": "🚗" * 128, "entityType": "T" * 64}}
    parsed = parse_event(event(entity, eventName="N" * MAX_NAME, eventType="T" * MAX_NAME))
    assert len(parsed.touches[0].entity_id) == 128


def test_the_same_id_under_two_types_is_two_entities() -> None:
    other = {"entityHeader": {"entityId": "CAR-1", "entityType": "Loan"}}
    assert len(parse_event(event(touch("CAR-1"), other)).touches) == 2


def test_as_many_entities_as_one_transaction_can_write_are_taken() -> None:
    parsed = parse_event(event(*(touch(str(n)) for n in range(MAX_ENTITIES))))
    assert 2 + 2 * len(parsed.touches) == 3_000


# Dates.


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        ("2026-03-02T08:14:07.120Z", datetime(2026, 3, 2, 8, 14, 7, 120_000, UTC)),
        ("2026-03-02T08:14:07", datetime(2026, 3, 2, 8, 14, 7, 0, UTC)),
        ("2026-03-02T08:14:07.123456789Z", datetime(2026, 3, 2, 8, 14, 7, 123_456, UTC)),
        ("2026-03-02T08:14:07+20:00", datetime(2026, 3, 1, 12, 14, 7, 0, UTC)),
        (1_772_439_247_120, datetime(2026, 3, 2, 8, 14, 7, 120_000, UTC)),
        (1_772_439_247_120.5, datetime(2026, 3, 2, 8, 14, 7, 120_500, UTC)),
        ("1772439247120", datetime(2026, 3, 2, 8, 14, 7, 120_000, UTC)),
        ("-1000", datetime(1969, 12, 31, 23, 59, 59, 0, UTC)),
        (0, datetime(1970, 1, 1, 0, 0, 0, 0, UTC)),
    ],
)
def test_a_date_is_iso_8601_or_epoch_milliseconds(wire: object, expected: datetime) -> None:
    found = parse_event(event(createdDate=wire)).created_date
    assert found == expected
    assert found is not None
    assert found.utcoffset() == timedelta(0)


def test_an_offset_is_kept_as_the_moment_that_it_names() -> None:
    cet = timezone(timedelta(hours=2))
    made = Event.new("A", [Entity("Car", "1")], created_date=datetime(2026, 7, 1, 12, tzinfo=cet))
    assert '"createdDate":"2026-07-01T12:00:00.000+02:00"' in parse_event(made).data
    assert parse_event(made).created_date == datetime(2026, 7, 1, 10, tzinfo=UTC)


def test_an_event_may_have_no_dates() -> None:
    assert parse_event(event()).created_date is None


def copies(parsed: ParsedEvent) -> int:
    """The bytes that the tables get."""
    texts = [parsed.data] * 2
    texts += [text for t in parsed.touches for text in (t.attributes, t.header)]
    return sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("source", [*EXACT.values(), OLDER.read_text()], ids=[*EXACT, "older form"])
def test_stored_bytes_are_an_upper_bound_and_a_close_one(source: str) -> None:
    parsed = parse_event(source)
    assert copies(parsed) <= parsed.stored_bytes <= copies(parsed) + len(source)


# The fingerprint.


def test_the_fingerprint_is_of_the_content_without_saved_date() -> None:
    first = parse_event(event(savedDate="2026-01-01T00:00:00Z", createdDate=5))
    again = parse_event(event(savedDate="2026-01-02T00:00:00Z", createdDate=5))
    never = parse_event(event(createdDate=5))
    assert first.fingerprint == again.fingerprint == never.fingerprint
    assert first.data != again.data
    assert first.fingerprint == sha256(msgspec.json.encode(event(createdDate=5))).digest()


def test_of_a_name_twice_in_the_event_or_its_header_the_last_counts_deeper_ones_both() -> None:
    plain = json.dumps(event())
    at_top = plain.replace('{"eventHeader"', '{"eventHeader": 5, "eventHeader"', 1)
    entities = plain.replace('"entities"', '"entities": [5], "entities"', 1)
    in_header = plain.replace('{"uuid"', f'{{"uuid": "{UUID(int=7)}", "uuid"', 1)
    deeper = plain.replace('{"entityId"', '{"entityId": "x", "entityId"', 1)
    parsed = parse_event(plain)
    for text in (at_top, entities, in_header, deeper):
        found = parse_event(text)
        assert (found.data, found.id, found.touches[0].entity_id) == (text, parsed.id, "CAR-1")
        assert (found.fingerprint == parsed.fingerprint) == (text is not deeper)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (
            {"entities": ["Order"]},
            r"entities\[0\] of an Event must be an Entity, not str: Entity\(",
        ),
        ({"entities": [Entity("A", "1"), 7]}, r"entities\[1\] .* not int: Entity\("),
        ({"entities": "Order"}, "takes the type and the entities, and the name by keyword: Event"),
        ({"entities": None}, r"takes a list of entities, not NoneType: entities=\[Entity\("),
        ({"entities": Entity("A", "1")}, r"takes a list of entities, not Entity: entities=\["),
        ({"created_date": "2026-01-01"}, "created_date as a datetime, not str: created_date="),
    ],
)
def test_a_part_of_an_event_of_another_type_is_named_with_what_to_write(
    given: Json, rule: str
) -> None:
    parts: Json = {"entities": [Entity("A", "1")]} | given
    with pytest.raises(TypeError, match=rule):
        Event.new("OrderPaid", **parts)


def test_the_name_of_an_event_is_its_type_or_another_one() -> None:
    order = [Entity("Order", "1")]
    assert parse_event(Event.new("OrderPaid", order)).name == "OrderPaid"
    assert parse_event(Event.new("OrderPaid", order, name="Order paid")).name == "Order paid"
    with pytest.raises(InvalidEvent, match="must not be empty"):
        parse_event(Event.new("OrderPaid", order, name=""))


@pytest.mark.parametrize("more", [{}, {"created_date": datetime(2026, 7, 1, tzinfo=UTC)}])
def test_a_name_before_the_type_is_refused_with_what_to_write(more: Json) -> None:
    new: Any = Event.new
    with pytest.raises(TypeError, match=r'new\("LoanPaid", \[loan\], name="Loan Paid"\)'):
        new("Order Paid", "OrderPaid", [Entity("Order", "1")], **more)


def test_the_header_of_an_event_has_a_type_of_its_own() -> None:
    header: Any = "Order Paid"
    with pytest.raises(TypeError, match=r"must be an EventHeader, not str: Event.new\("):
        Event(header, (Entity("A", "1"),))


def test_the_fingerprint_counts_order_and_blanks_of_the_attributes() -> None:
    text = json.dumps(event(touch(a={"b": 1, "c": 2})))
    others = [
        text.replace('"b": 1, "c": 2', '"c": 2, "b": 1'),
        text.replace('{"b": 1', '{ "b": 1'),
        text.replace('"b": 1', '"b": 1.0'),
    ]
    found = {parse_event(t).fingerprint for t in (text, *others)}
    assert len(found) == 4
