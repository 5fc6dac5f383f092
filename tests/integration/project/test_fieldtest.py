"""The field test finds what a bad relay does: it runs on a table and a loop, and is tiny."""

from pathlib import Path

import pytest
from benchmarks.fieldtest.harms import HARMS
from benchmarks.fieldtest.lane import Lane
from benchmarks.fieldtest.libraries import LIBRARIES, OWN, Library
from benchmarks.fieldtest.trial import ProgramFailed, Size

from dsql_outbox.testing import EmbeddedPostgres

LIBRARY = {each.name: each for each in LIBRARIES}
LOOP = LIBRARY["a table and a loop"]
HARM = {each.name: each for each in HARMS}
SIZE = Size(events=100, keys=5)

pytestmark = pytest.mark.postgres_only("its adapters make tables of their own")


def test_a_loop_loses_reorders_and_repeats_and_each_column_counts_it(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    lane = Lane(postgres, tmp_path, SIZE)
    harms = [HARM["late-commit"], HARM["refusal"], HARM["kill"]]
    late, refused, killed = lane.trials(LOOP, 1, harms)
    assert late.lost > 0
    assert (late.reordered, late.repeated, late.waiting) == (0, 0, 0)
    assert late.first["missing"]
    assert refused.reordered > 0
    assert (refused.lost, refused.repeated) == (0, 0)
    assert killed.repeated > 0
    assert (killed.lost, killed.restarts) == (0, 3)
    log = (tmp_path / "home_made-kill-1.log").read_text()
    assert log.count("SIGKILL") == 3
    assert log.count("stored") == SIZE.events + killed.repeated


def test_a_program_that_cannot_start_fails_with_the_reason(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    nobody = Library("nobody", "no_such_module", "", "", "", "", "", own=True)
    with pytest.raises(ProgramFailed, match=r"No module named .*no_such_module"):
        list(Lane(postgres, tmp_path, SIZE).trials(nobody, 1, HARMS))


@pytest.mark.slow
def test_ours_loses_and_reorders_nothing(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    harms = [HARM["refusal"], HARM["pause"]]
    for found in Lane(postgres, tmp_path, SIZE).trials(LIBRARY[OWN], 1, harms):
        assert (found.lost, found.reordered, found.kept, found.waiting) == (0, 0, 0, 0)
        assert found.repeated == 0 or found.harm == "pause"
