"""docs/decisions: every record is dated, has a status, and is in the index once."""

import re
from datetime import date

import pytest
from tests.support.checkout import ROOT

FOLDER = ROOT / "docs" / "decisions"
RECORDS = {path.name: path for path in FOLDER.glob("*.md") if path.name != "README.md"}
INDEX = (FOLDER / "README.md").read_text(encoding="utf-8")

FORM = re.compile(
    r"# (?P<title>[^\n]+)\n\n"
    r"- Date: (?P<date>\d{4}-\d\d-\d\d)\n"
    r"- Status: (?P<status>accepted|superseded by \[(?P<by>[^]]+)\]\((?P<file>[^)/]+)\))\n\n"
    r"## Context\n\n(?!#).+\n\n## Decision\n\n(?!#).+\n\n## Consequences\n\n(?!#).+\n",
    re.DOTALL,
)
LINE = re.compile(
    r"^- (?P<date>\S+) \[(?P<title>.+)\]\((?P<file>[^)]+)\)(?P<status> \(superseded\))?$",
    re.MULTILINE,
)


def parsed(name: str) -> re.Match[str]:
    found = FORM.fullmatch(RECORDS[name].read_text(encoding="utf-8"))
    assert found is not None, f"{name} has not the form that docs/decisions/README.md shows"
    return found


def test_there_are_records() -> None:
    assert len(RECORDS) > 40


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_record_has_the_form_of_the_index_page_and_the_date_of_its_name(name: str) -> None:
    record = parsed(name)
    assert date.fromisoformat(record["date"])
    assert re.fullmatch(rf"{record['date']}-[a-z0-9-]+\.md", name)


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_superseded_record_names_a_newer_one_that_is_accepted(name: str) -> None:
    record = parsed(name)
    if record["file"] is not None:
        newer = parsed(record["file"])
        assert newer["title"] == record["by"]
        assert newer["date"] >= record["date"]
        assert newer["status"] == "accepted"


def test_the_index_has_each_record_once_with_its_date_title_and_status() -> None:
    listed = sorted(match.groups("") for match in LINE.finditer(INDEX))
    there = [
        (record["date"], record["title"], name, " (superseded)" if record["file"] else "")
        for name in RECORDS
        if (record := parsed(name))
    ]
    assert listed == sorted(there)


def test_each_section_of_the_index_has_its_newest_record_first() -> None:
    for section in INDEX.split("\n## ")[1:]:
        dates = [match["date"] for match in LINE.finditer(section)]
        assert dates == sorted(dates, reverse=True)
