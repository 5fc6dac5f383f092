"""What docs/compatibility.md promises: names, signatures and tables are those of the release.

A difference is a change for users. After the release, a name that is missing or takes other
arguments breaks them. `make fmt` writes a new one into the files, until the first release.
"""

from tests.support.public_names import KEPT, checksums, signatures

CHANGED = "`make fmt` writes tests/data/compatibility: is the change for users meant, and told?"


def test_the_public_names_are_those_of_the_release() -> None:
    kept = (KEPT / "names.txt").read_text(encoding="utf-8").splitlines()
    assert signatures().splitlines() == kept, CHANGED


def test_the_tables_are_those_of_the_release() -> None:
    kept = (KEPT / "tables.txt").read_text(encoding="utf-8").splitlines()
    assert checksums().splitlines() == kept, CHANGED
