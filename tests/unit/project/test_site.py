"""The documentation's site: it shows the whole API, and its pictures are those of their source.

`make docs` builds it, and fails at a broken link or a page that no menu has.
"""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.checkout import ROOT

import dsql_outbox
from dsql_outbox.outbox import errors

DOCS = ROOT / "docs"
SHOWN = set(re.findall(r"^::: (?:\w+\.)+(\w+)$", "\n".join(
    path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md")
), re.MULTILINE))  # fmt: skip


def test_the_reference_shows_each_exported_name() -> None:
    names = set(dsql_outbox.__all__) - {"__version__"}
    assert sorted(name for name in names - SHOWN if not hasattr(errors, name)) == []


def test_the_pictures_are_those_of_their_source(tmp_path: Path) -> None:
    drawn = tmp_path / "pictures"
    subprocess.run([sys.executable, DOCS / "site" / "diagrams.py", drawn], check=True)
    assert list(drawn.iterdir())
    for picture in drawn.iterdir():
        kept = DOCS / "pictures" / picture.name
        assert picture.read_text() == kept.read_text(), "run `make pictures`"


def test_the_program_of_the_first_page_is_that_of_the_readme() -> None:
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```$", (DOCS / "index.md").read_text())
    assert code in (ROOT / "README.md").read_text()
