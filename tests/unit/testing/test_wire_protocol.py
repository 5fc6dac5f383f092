"""The wire protocol: bytes cut into messages, and messages made."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.proxy import wire_protocol as wire
from tests.support.proxy.wire_protocol import Splitter, WireMessage

STARTUP = WireMessage(b"", pack("!I", 196608) + b"user\0postgres\0\0")
SSL = WireMessage(b"", pack("!I", wire.SSL_REQUEST))
GSS = WireMessage(b"", pack("!I", wire.GSSENC_REQUEST))

messages = st.builds(
    WireMessage, st.binary(min_size=1, max_size=1), st.binary(max_size=40) | st.just(b"x" * 70_000)
)


def feed_in_pieces(splitter: Splitter, data: bytes, size: int) -> list[WireMessage]:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return [message for piece in pieces for message in splitter.feed(piece)]


@given(st.lists(messages, max_size=6), st.sampled_from([1, 2, 5, 7, 64, 1 << 20]))
def test_a_servers_messages_come_out_as_they_went_in(sent: list[WireMessage], size: int) -> None:
    data = b"".join(message.raw for message in sent)
    size = size if len(data) < 1000 else max(size, 1000)
    assert feed_in_pieces(Splitter(untyped=False), data, size) == sent


@pytest.mark.parametrize("requests", [[], [SSL], [GSS, SSL]])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_client_begins_with_messages_without_a_letter(
    requests: list[WireMessage], size: int
) -> None:
    sent = [*requests, STARTUP, wire.query("SELECT 1"), WireMessage(wire.SYNC, b"")]
    data = b"".join(message.raw for message in sent)
    assert feed_in_pieces(Splitter(untyped=True), data, size) == sent


def test_an_unfinished_message_waits_for_the_rest() -> None:
    splitter, raw = Splitter(untyped=False), wire.query("SELECT 1").raw
    assert splitter.feed(raw[:-1]) == []
    assert splitter.feed(raw[-1:]) == [wire.query("SELECT 1")]


def test_what_cannot_be_postgresql_is_refused() -> None:
    with pytest.raises(ValueError, match="message length 3 is below 4"):
        Splitter(untyped=False).feed(b"Z\0\0\0\3")


def test_statements_are_read() -> None:
    assert wire.query_text(wire.query("SELECT 'ä'")) == "SELECT 'ä'"
    parsed = WireMessage(wire.PARSE, b"s1\0SELECT $1\0\0\1\0\0\0\x19")
    assert wire.parsed_statement(parsed) == ("s1", "SELECT $1")
    assert wire.parsed_statement(wire.parse("COMMIT")) == ("", "COMMIT")
    assert (
        wire.bound_statement(WireMessage(wire.BIND, b"portal\0s1\0\0\0\0\1\0\0\0\1x\0\0")) == "s1"
    )


def test_an_error_carries_state_and_text() -> None:
    raw = wire.error_response("40001", "no").raw
    assert raw == b"E\0\0\0\x1eSERROR\0VERROR\0C40001\0Mno\0\0"
    assert b"\0C" not in wire.error_response(None, "no").body
