"""What the templates make of a text."""

import pytest

from dsql_outbox.console.layout import _pretty


@pytest.mark.parametrize(
    "text", ["no JSON", "", "[" * 200_000 + "]" * 200_000], ids=["text", "", "deep"]
)
def test_what_cannot_be_indented_is_shown_as_it_is(text: str) -> None:
    assert _pretty(text) == text
