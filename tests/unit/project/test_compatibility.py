"""What docs/compatibility.md promises: names, signatures and tables are those of the release.

A difference is a change for users. After the release, a name that is missing or takes other
arguments breaks them; a new one goes into the files by `python -m tests.support.public_names`.
"""

from tests.support.public_names import KEPT, checksums, signatures


def test_the_public_names_are_those_of_the_release() -> None:
    kept = (KEPT / "names.txt").read_text(encoding="utf-8").splitlines()
    assert signatures().splitlines() == kept


def test_the_tables_are_those_of_the_release() -> None:
    kept = (KEPT / "tables.txt").read_text(encoding="utf-8").splitlines()
    assert checksums().splitlines() == kept
