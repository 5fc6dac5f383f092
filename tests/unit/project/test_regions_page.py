"""The numbers of docs/dsql.md are those of the code."""

import pytest
from tests.support.checkout import ROOT
from tests.support.publisher.lease_model import SKEW

from dsql_outbox.publisher.relay.memory.scans import _LONGEST, _OVERLAP, _REST
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.writer import WriterSettings

PAGE = " ".join((ROOT / "docs" / "dsql.md").read_text().split())
P, W = TunedSettings(), WriterSettings()


@pytest.mark.parametrize(
    "said",
    [
        f"margin and grace, {P.margin + P.grace:g} s together",
        f"stop sending by their own clock, {P.lease - P.margin:g} s after the last renewal",
        f"take over {P.lease + P.grace:g} s after it",
        f"nodes {SKEW:g} s apart",
        f"after {P.broker_patience:g} s.",
        f"for {W.max_outage:g} s (`max_outage`)",
    ],
)
def test_the_page_has_the_numbers_of_the_settings(said: str) -> None:
    assert said in PAGE


def test_the_page_says_how_late_a_row_may_be_and_how_long_it_waits_then() -> None:
    assert _OVERLAP == 1_000_000
    assert "more than a second after its position" in PAGE
    assert (_REST, _LONGEST) == (1.0, 60.0)
    assert "a second in general and at most a minute" in PAGE
    assert f"for {W.timeout:g} s (`timeout`)" in PAGE
