"""The pictures and tables of docs/comparison.md are what the committed results give."""

from xml.etree import ElementTree as ET

from benchmarks.plots.drawings import PAGE, PICTURES, page, pictures
from benchmarks.plots.svg import Bar, bars, number
from tests.support.checkout import ROOT


def test_every_picture_is_what_the_results_give_and_is_shown() -> None:
    found = dict(pictures())
    shown = PAGE.read_text() + (ROOT / "README.md").read_text()
    assert len(found) >= 5
    for path, text in found.items():
        assert path.read_text() == text, f"{path.name} is stale: make plots"
        assert f"pictures/{path.name}" in shown
        ET.fromstring(text)
    drawn = {*PICTURES.glob("peers-*.svg"), *PICTURES.glob("growth-*.svg")}
    assert drawn == {*found}


def test_the_tables_of_the_page_are_what_the_results_give() -> None:
    assert PAGE.read_text() == page(), "docs/comparison.md is stale: make plots"


def test_bars_are_to_scale_and_names_are_escaped() -> None:
    text = bars("t", "u", [Bar("a<b", 50, 40, 100, own=True), Bar("c", 25, 25, 25)])
    root = ET.fromstring(text)
    wide, narrow = (float(bar.attrib["width"]) for bar in root.iter() if bar.tag.endswith("rect"))
    assert wide == 2 * narrow
    assert "a&lt;b" in text


def test_numbers_have_three_digits_that_count() -> None:
    assert [number(each) for each in (0, 0.4567, 12, 1234, 98765.4)] == [
        "0", "0.457", "12", "1,230", "98,800",
    ]  # fmt: skip
