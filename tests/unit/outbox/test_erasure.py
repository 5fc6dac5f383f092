"""What is left of an event after one of its entities was erased."""

import json
from typing import Any

import pytest

from dsql_outbox.outbox.event.erasure import EntityErasure
from dsql_outbox.outbox.event.event_parser import parse_event

ANN = ("Person", "ann")
CAR = '{"entityHeader":{"entityType":"Car","entityId":"1"},"name":"Ann Smith",  "a":1.0}'
SHARED = (
    '{"eventHeader": {"uuid":"00000000-0000-0000-0000-000000000001","eventName":"A B",'
    '"createdDate":5,"actor":"Ann Smith"}, "note":{"name":"Ann"}, "entities": ['
    ' {"entityHeader": {"entityType":"Person","entityId":"ann","createdAt":5,"by":"Eve"},'
    ' "id":"ann","name":"Ann Smith","n":1e200000,'
    '"home":{"street":"Main St","rooms":[{"name":"bath","m":1.50},7]}},  ' + CAR + "]}"
)
OLDER = (
    '{"eventHeader":{"uuid":"00000000-0000-0000-0000-000000000001","eventName":"A"},"eventBody":'
    '{"by":"Eve","entities":[{"entityType":"Person","entityId":"ann","x":"Main St",'
    '"updatedAttributes":{"name":"Ann Smith","id":"ann","id2":"ann"}},'
    '{"entityType":"Car","entityId":"1", "updatedAttributes":{"name":"Ann Smith"}}]}}'
)


def erased(data: str, *, is_subject: bool = False) -> Any:
    found = EntityErasure(*ANN).of_event(data, is_subject=is_subject)
    if found is None:
        return None
    parse_event(found.data)
    again = EntityErasure(*ANN).of_event(found.data, is_subject=is_subject)
    assert again is None, "a second run finds something"
    return json.loads(found.data), found


@pytest.mark.parametrize("is_subject", [True, False])
def test_all_of_an_entity_goes_and_the_others_keep_their_bytes(*, is_subject: bool) -> None:
    document, found = erased(SHARED, is_subject=is_subject)
    assert CAR in found.data
    header = {"entityType": "Person", "entityId": "ann", "createdAt": 5}
    assert document["entities"][0] == {"entityHeader": header, "id": "ann"}
    assert ("actor" in document["eventHeader"], "note" in document) == (not is_subject,) * 2
    assert {"Ann Smith", "Main St", "bath", "1.50", "1e200000", "Eve"} <= found.values
    assert found.is_named_in("for Ann Smith, by mail")
    assert not found.is_named_in("7 of 70")


def test_the_older_form_is_erased_as_well() -> None:
    document, _ = erased(OLDER)
    assert document["eventBody"]["by"] == "Eve"
    ann, car = document["eventBody"]["entities"]
    assert ann == {"entityType": "Person", "entityId": "ann", "updatedAttributes": {"id": "ann"}}
    assert car["updatedAttributes"] == {"name": "Ann Smith"}
    document, _ = erased(OLDER, is_subject=True)
    assert "by" not in document["eventBody"]


@pytest.mark.parametrize(
    ("place", "is_subject"),
    [('"name":"Ann Smith"', False), ('"street":"Main St"', False), ('"actor":"Ann Smith"', True)],
)
def test_a_value_that_a_later_member_hides_goes(place: str, *, is_subject: bool) -> None:
    name = place.split(":", 1)[0]
    doubled = SHARED.replace(place, f'{name}:"HIDDEN",{name}:7', 1)
    _, found = erased(doubled, is_subject=is_subject)
    assert "HIDDEN" not in found.data
    assert CAR in found.data


def test_an_event_without_the_entity_is_left_alone() -> None:
    assert EntityErasure("Person", "bob").of_event(SHARED, is_subject=False) is None
