"""The patterns of errors: one for each kind, and each matches its error."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.operations import Selection
from dsql_outbox.schema.burial import error_pattern


@pytest.mark.parametrize(
    ("error", "pattern"),
    [
        (
            "nats: message of 1048812 bytes is over the server's max_payload of 1048576 bytes",
            "nats: message of * bytes is over the server's max_payload of * bytes",
        ),
        ("HTTP 503: LOAN-7 not found (req 8a7b-11ee)", "HTTP 503: * not found (req *)"),
        ("https://x:8080/a/7 answered 429, later", "* answered 429, later"),
        ("MSG_SIZE_TOO_LARGE in events.LoanPaid[3].", "MSG_SIZE_TOO_LARGE in events.LoanPaid[*]."),
        ("id=12, id='ab3' {'a': 9}", "id=*, id='*' {'a': *}"),
        ("1,048,576 5,5. 4110 411", "*. * 411"),
        ("a\n  b\x1b[2J ann@example.com", "a*b*[* ann@example.com"),
        ("  no digit at all ", "no digit at all"),
        ("x" * 500, "x" * 200),
        ("", ""),
    ],
)
def test_what_differs_from_message_to_message_is_a_star(error: str, pattern: str) -> None:
    assert error_pattern(error) == pattern


TEXTS = st.text(st.sampled_from("aB 7,.:*%_\\\n\x1b(é'4"), max_size=300) | st.text(max_size=50)


@given(TEXTS)
def test_a_pattern_matches_its_error_and_is_its_own(error: str) -> None:
    if (pattern := error_pattern(error)) and "\0" not in error:
        like = str(Selection(error=pattern).parameters()["error"])
        parts = re.findall(r"\\(.)|(%)|(.)", like, re.DOTALL)
        found = "".join(".*" if each else re.escape(a or b) for a, each, b in parts)
        assert re.fullmatch(found, error, re.DOTALL)
    assert pattern.isprintable()
    assert len(pattern) <= 200
    assert error_pattern(pattern) == pattern


OFFSETS = st.integers(0, 10**9).filter(lambda n: not 400 <= n < 600)


@given(st.uuids(), OFFSETS, st.uuids(), OFFSETS)
def test_errors_of_one_kind_share_a_pattern(a: object, b: int, c: object, d: int) -> None:
    first, second = (
        error_pattern(f"kafka: record {one} at offset {two:,} of x{two} was refused")
        for one, two in ((a, b), (c, d))
    )
    assert first == second == "kafka: record * at offset * of * was refused"
