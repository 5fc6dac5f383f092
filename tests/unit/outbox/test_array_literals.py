"""PostgreSQL array literals."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from dsql_outbox.outbox import array_literal


@pytest.mark.parametrize(
    ("values", "literal"),
    [
        ([], "{}"),
        ([None], "{NULL}"),
        (["NULL"], '{"NULL"}'),
        ([""], '{""}'),
        (["a", "b"], '{"a","b"}'),
        (["a,b", "{c}", " d "], '{"a,b","{c}"," d "}'),
        (['say "x"'], r'{"say \"x\""}'),
        ([r"C:\new"], r'{"C:\\new"}'),
        ([r"\""], r'{"\\\""}'),
        (["line\nbreak"], '{"line\nbreak"}'),
        ([1, -2], '{"1","-2"}'),
        ([True, False], '{"True","False"}'),
        ([UUID(int=1)], '{"00000000-0000-0000-0000-000000000001"}'),
        ([datetime(2026, 3, 2, tzinfo=UTC)], '{"2026-03-02 00:00:00+00:00"}'),
    ],
)
def test_every_element_is_quoted(values: list[object], literal: str) -> None:
    assert array_literal(values) == literal
