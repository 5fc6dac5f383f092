"""PostgreSQL array literals."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.outbox.database.array_literals import array_literal, json_array, text_array


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


TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\,{}\n\r\t\x1f\x7f⬡'))
JSON = st.recursive(
    st.none() | TEXT, lambda value: st.lists(value) | st.dictionaries(TEXT, value), max_leaves=8
)


@given(st.lists(TEXT))
def test_an_array_of_texts_is_the_same_literal(texts: list[str]) -> None:
    assert text_array(texts) == array_literal(texts)


@given(st.lists(JSON), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_an_array_of_json_is_the_same_literal(
    values: list[object], indent: int | str | None, ascii_only: bool
) -> None:
    documents = [json.dumps(value, indent=indent, ensure_ascii=ascii_only) for value in values]
    assert json_array(documents) == array_literal(documents)


@pytest.mark.parametrize("space", ["\n", "\r", "\t"])
def test_white_space_between_members_is_kept(space: str) -> None:
    assert json_array([f'{{"a":{space}1}}']) == f'{{"{{\\"a\\":{space}1}}"}}'
