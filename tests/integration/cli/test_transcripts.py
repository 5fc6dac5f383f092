"""What commands print, as it stands in the files of ``transcripts/``.

`make transcripts` writes them anew: read the diff before it is committed.
"""

import os
from pathlib import Path
from typing import Final

import pytest
from tests.support.transcripts import Section, replayed, sections

from dsql_outbox.operations import targets as operator_targets

pytestmark = pytest.mark.client  # the tests of the operators' tools ask a cluster the same

FOLDER: Final = Path(__file__).parent / "transcripts"
IS_WRITING: Final = os.environ.get("TRANSCRIPTS") == "write"


@pytest.mark.parametrize("section", [*sections(FOLDER)], ids=lambda section: section.name)
def test_a_command_prints_what_its_transcript_says(
    section: Section, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)
    found = replayed(section, url)
    if IS_WRITING:
        text = section.path.read_text(encoding="utf-8")
        section.path.write_text(text.replace(section.text, found).rstrip() + "\n")
    assert found.rstrip() == section.text.rstrip()
