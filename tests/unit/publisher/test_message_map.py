"""What a map may be, what it may return, and the wire form that follows."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import pydantic
import pytest
from tests.support.publisher.given_rows import row

from dsql_outbox.outbox import Message
from dsql_outbox.outbox.message import RESERVED_HEADERS
from dsql_outbox.publisher import TOMBSTONE, MapFailed, Refuse, WireForm
from dsql_outbox.publisher.message_map import require_map, wire_message

STORED = (
    '{"specversion":"1.0","id":"1","source":"/shop","type":"LoanPaid","tenant":"acme",'
    '"datacontenttype":"application/json","time":"2026-11-30T10:00:00.000000+00:00",'
    '"entities":"Loan/L-1@3","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
)


@pytest.fixture
def message() -> Message:
    made = row("L-1", 7, headers=STORED).message(attempt=2, picked_up_ns=9, epoch=4)
    assert isinstance(made, Message)
    return made


@dataclass
class Order:
    order_id: str
    total: int


class Struct(msgspec.Struct):
    order_id: str
    total: int


class Model(pydantic.BaseModel):
    order_id: str
    total: int


ORDER = b'{"order_id":"L-1","total":5}'
JSON, TEXT, OCTETS = "application/json", "text/plain; charset=utf-8", "application/octet-stream"


def mapped(message: Message, made: object) -> Message:
    found = wire_message(lambda _: made, message)
    assert isinstance(found, Message)
    return found


@pytest.mark.parametrize(
    ("made", "payload", "content_type"),
    [
        (b"\x00\xff", b"\x00\xff", OCTETS),
        (b"", b"", OCTETS),
        ("h\u00e9", b"h\xc3\xa9", TEXT),
        ({"order_id": "L-1", "total": 5}, ORDER, JSON),
        (Order("L-1", 5), ORDER, JSON),
        (Struct("L-1", 5), ORDER, JSON),
        (Model(order_id="L-1", total=5), ORDER, JSON),
        ([Model(order_id="L-1", total=5)], b"[" + ORDER + b"]", JSON),
        ((), b"[]", JSON),
        ({"rate": float("nan"), "limit": float("-inf")}, b'{"rate":null,"limit":null}', JSON),
        ({"key": b"\x00\xff", "tags": {"new"}}, b'{"key":"AP8=","tags":["new"]}', JSON),
        ({"price": Decimal("1.50"), "at": (1, 2)}, b'{"price":"1.50","at":[1,2]}', JSON),
        (WireForm({"a": 1}), b'{"a":1}', JSON),
        (WireForm(b"x"), b"x", OCTETS),
        (WireForm("x"), b"x", TEXT),
        (WireForm(b"x", "application/avro"), b"x", "application/avro"),
        (
            WireForm({"a": 1}, "application/vnd.shop.v2+json"),
            b'{"a":1}',
            "application/vnd.shop.v2+json",
        ),
        (WireForm("a,b", "text/csv; header=present"), b"a,b", "text/csv; header=present"),
    ],
)
def test_a_map_makes_payload_and_content_type(
    message: Message, made: object, payload: bytes, content_type: str
) -> None:
    found = mapped(message, made)
    assert (found.payload, found.content_type) == (payload, content_type)
    assert found.headers == message.headers | {"datacontenttype": content_type}
    same = msgspec.structs.replace(found, payload=message.payload, headers=message.headers)
    assert same == message


def test_the_message_itself_is_sent_as_it_is_stored(message: Message) -> None:
    assert wire_message(lambda each: each, message) == message


def test_none_and_a_refusal_are_what_they_are(message: Message) -> None:
    assert wire_message(lambda _: None, message) is None
    assert wire_message(lambda _: Refuse("no"), message) == Refuse("no")


def test_attributes_are_added_replaced_and_left_out(message: Message) -> None:
    changes = {"region": "eu", "type": "shop.loan.paid.v2"}
    left_out = {"tenant", "entities", "time", "id", "source", "subject", "position"}
    made = WireForm(b"", attributes=changes | dict.fromkeys(left_out))
    found = mapped(message, made).headers
    assert changes.items() <= found.items()
    assert not found.keys() & left_out
    kept = message.headers.keys() - changes.keys() - left_out - {"datacontenttype"}
    assert {name: found[name] for name in kept} == {name: message.headers[name] for name in kept}


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS - {"type"}))
def test_ids_place_and_trace_stay_those_of_the_event(message: Message, name: str) -> None:
    with pytest.raises(MapFailed, match=name):
        wire_message(lambda _: WireForm(b"", attributes={name: "x"}), message)


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"x-tenant": "a"}, "whose name is not 1 to 20 of the characters a-z 0-9"),
        ({"Tenant": None}, "whose name is not 1 to 20 of the characters a-z 0-9"),
        ({"tenant": 5}, "headers.tenant: must be a str, not int"),
        ({"tenant": ""}, "must not be empty"),
        ({"tenant": "a\r\nx: y"}, "must not hold the character U[+]000D"),
        ({5: "x"}, "whose name is not 1 to 20 of the characters a-z 0-9"),
        ({"traceparent": None}, "leaves out the attribute traceparent"),
        ({"datacontenttype": None}, "leaves out the attribute datacontenttype"),
        ({f"n{n}": "x" for n in range(21)}, "over the limit of 20"),
        ([("a", "b")], "attributes of type list"),
    ],
)
def test_attributes_that_are_not_valid_fail_the_message(
    message: Message, attributes: Any, text: str
) -> None:
    with pytest.raises(MapFailed, match=text):
        wire_message(lambda _: WireForm(b"", attributes=attributes), message)


def test_an_existing_contract_has_its_own_key_topic_and_names_of_headers(message: Message) -> None:
    headers = {"correlation-id": "c 7", "__TypeId__": "shop.Loan", "x_tenant.Id": "~"}
    found = mapped(message, WireForm(b"x", headers=headers, key="L-1", topic="prod.loans"))
    assert found.wire_headers == headers
    assert (found.broker_key, found.topic) == ("L-1", "prod.loans")
    assert (found.key, found.stored_topic) == (message.key, message.topic)
    assert message.broker_key == message.key


@pytest.mark.parametrize("made", [TOMBSTONE, WireForm(TOMBSTONE)])
def test_a_deletion_has_neither_payload_nor_content_type(message: Message, made: object) -> None:
    found = mapped(message, made)
    assert (found.is_deletion, found.payload) == (True, b"")
    assert found.headers.keys() == message.headers.keys() - {"datacontenttype"}


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ({"headers": {"a b": "x"}}, "whose name is not 1 to 100 of the characters"),
        ({"headers": {"": "x"}}, "whose name is not 1 to 100 of the characters"),
        ({"headers": {"caf\u00e9": "x"}}, "whose name is not 1 to 100 of the characters"),
        ({"headers": {5: "x"}}, "whose name is not 1 to 100 of the characters"),
        ({"headers": {"dedupe-id": "x"}}, "header dedupe-id, which a sink sets itself"),
        ({"headers": {"Nats-Rollup": "all"}}, "header Nats-Rollup, which a sink sets itself"),
        ({"headers": {"CE-id": "x"}}, "header CE-id, which a sink sets itself"),
        ({"headers": {"ce_id": "x"}}, "header ce_id, which a sink sets itself"),
        ({"headers": {"Content-Type": "x"}}, "header Content-Type, which a sink sets itself"),
        ({"headers": {"traceparent": "x"}}, "header traceparent, which a sink sets itself"),
        ({"headers": {"CC": "x"}}, "header CC, which a sink sets itself"),
        ({"headers": {"x": ""}}, "header x with a value that is not 1 to 1024"),
        ({"headers": {"x": "a\r\ny: z"}}, "header x with a value that is not 1 to 1024"),
        ({"headers": {"x": "a\n"}}, "header x with a value that is not 1 to 1024"),
        ({"headers": {"x": "caf\u00e9"}}, "header x with a value that is not 1 to 1024"),
        ({"headers": {"x": " a"}}, "header x with a value that is not 1 to 1024"),
        ({"headers": {"x": "a" * 1025}}, "header x with a value that is not 1 to 1024"),
        ({"headers": {"x": None}}, "header x as NoneType, not str"),
        ({"headers": {f"n{n}": "x" for n in range(21)}}, "21 headers, over the limit of 20"),
        ({"headers": [("a", "b")]}, "headers of type list"),
        ({"key": b"L-1"}, "key of type bytes, not str"),
        ({"key": ""}, "key that is not 1 to 1024 characters"),
        ({"key": "\ud800"}, "key that is not 1 to 1024 characters"),
        ({"key": "a" * 1025}, "key that is not 1 to 1024 characters"),
        ({"topic": 5}, "topic of type int, not str"),
        ({"topic": "a..b"}, "topic that not every broker takes"),
        ({"topic": "$JS.API"}, "topic that not every broker takes"),
        ({"payload": TOMBSTONE, "content_type": "text/plain"}, "gave a content type to TOMBSTONE"),
    ],
)
def test_what_no_broker_or_not_every_one_takes_fails_the_message(
    message: Message, made: dict[str, Any], text: str
) -> None:
    with pytest.raises(MapFailed, match=text):
        wire_message(lambda _: WireForm(**{"payload": b"", **made}), message)


@pytest.mark.parametrize("name", ["secret-4711", b"secret-4711"])
def test_an_error_quotes_no_name_that_is_none(message: Message, name: object) -> None:
    """As of a mapping whose names and values changed their places."""
    names: Any = {name: "authorization \u00e9"}
    for made in WireForm(b"", attributes=names), WireForm(b"", headers={**names, 5: ""}):
        with pytest.raises(MapFailed) as failed:
            wire_message(partial(lambda form, _: form, made), message)
        assert "4711" not in failed.value.report


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "avro",
        "text/plain\r\nx: y",
        "text/plain\n",
        "t\u00e9xt/plain",
        "a b/c",
        5,
        b"text/plain",
    ],
)
def test_a_content_type_that_is_none_fails_the_message(message: Message, content_type: Any) -> None:
    with pytest.raises(MapFailed, match=r"returned a content type (that|of type)"):
        wire_message(lambda _: WireForm(b"", content_type), message)


class Lock:
    pass


class Raising(Mapping[str, str]):
    def __getitem__(self, key: str) -> str:
        raise LookupError(key)

    def __iter__(self) -> Any:
        raise LookupError

    def __len__(self) -> int:
        raise LookupError


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (5, "object of type int"),
        (True, "object of type bool"),
        (2.5, "object of type float"),
        (bytearray(b"x"), "object of type bytearray"),
        (Lock(), "object of type Lock"),
        ({"a": Lock()}, "object of type dict: .*Lock has no form in JSON"),
        (threading.Lock, "object of type"),
        (WireForm(None), "object of type NoneType"),
        (WireForm(WireForm(b"")), "object of type WireForm"),
        ("\ud800", "half a surrogate pair"),
        ({"a": "\ud800"}, "object of type dict"),
        (Refuse(5), "reason of type int"),  # type: ignore[arg-type]
        ((n for n in "ab"), "object of type generator"),
        (Raising(), "raised LookupError|object of type Raising"),
    ],
)
def test_what_cannot_be_sent_is_named_by_its_type(
    message: Message, made: object, text: str
) -> None:
    with pytest.raises(MapFailed, match=text):
        wire_message(lambda _: made, message)


def test_another_message_cannot_be_returned(message: Message) -> None:
    other = msgspec.structs.replace(message, key="Car/other")
    with pytest.raises(MapFailed, match="of type Message as a payload"):
        wire_message(lambda _: other, message)


def test_an_error_names_its_type_and_its_places_and_not_its_text(message: Message) -> None:
    def inner(_: Message) -> bytes:
        raise ValueError("Hunter2")

    def map_(each: Message) -> bytes:
        return inner(each)

    with pytest.raises(MapFailed) as caught:
        wire_message(map_, message)
    assert str(caught.value) == "the map raised ValueError"
    assert [place.rpartition(".")[2] for place in caught.value.places] == ["map_", "inner"]
    assert caught.value.__cause__ is None


# --- what a map may be -----------------------------------------------------------------------


class Mapper:
    def __init__(self, opening: object = None) -> None:
        if opening is not None:
            self.open = opening

    def __call__(self, message: Message) -> bytes:
        return message.payload


class AsyncMapper:
    async def __call__(self, message: Message) -> bytes:
        return message.payload


def with_more(message: Message, more: int = 1) -> bytes:
    return message.payload * more


async def asynchronous(message: Message) -> bytes:
    return message.payload


@pytest.mark.parametrize(
    "function",
    [with_more, partial(with_more, more=2), Mapper(), Mapper().__call__, Mapper(lambda: None), id],
)
def test_a_function_of_one_argument_can_be_a_map(function: Callable[[Message], object]) -> None:
    require_map("Publisher", function)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (5, "takes a function of a message as its map, not int: map=to_message"),
        ("shop:to_message", "not str"),
        (Mapper, "not a class: map=Mapper"),
        (asynchronous, "the map must be a plain function: def, and not async def"),
        (partial(asynchronous), "plain function"),
        (AsyncMapper(), "plain function"),
        (Mapper(asynchronous), "the method open of the map must be a plain function"),
        (Mapper(5), "is a method"),
        (lambda: None, "must take one argument"),
        (lambda _message, _connection: None, "must take one argument.*connection"),
        (lambda *, _message: None, "must take one argument"),
    ],
)
def test_anything_else_is_refused(function: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        require_map("Publisher", function)


class Reason(str):
    """A text that cannot be shown."""

    __slots__ = ()

    def __str__(self) -> str:
        raise LookupError("secret")


@pytest.mark.parametrize("reason", ["x" * 1_000_000, Reason("x" * 1_000_000)])
def test_of_a_reason_the_first_thousand_characters_are_kept(message: Message, reason: str) -> None:
    made = wire_message(lambda _: Refuse(reason), message)

    assert isinstance(made, Refuse)
    assert type(made.reason) is str
    assert made.reason == "x" * 1_000
