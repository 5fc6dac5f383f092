"""An error of the user's function on one line: what it raised, and where in its code."""

import pytest

from dsql_outbox.cli.output import with_first_place

RAISED = "the function to apply raised UndefinedColumn (42703)"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            f"{RAISED}\n  /srv/shop/contracts.py:15 count_steps\n  /lib/x.py:3 C.d",
            f"{RAISED} at contracts.py:15 count_steps",
        ),
        (f"{RAISED}\n  C:\\shop\\steps.py:7 apply", f"{RAISED} at steps.py:7 apply"),
        (f"{RAISED}\n  <string>:1 f", f"{RAISED} at <string>:1 f"),
        (RAISED, RAISED),
        ("no such stream\n  of this name", "no such stream"),
        ("", ""),
    ],
)
def test_the_place_is_that_of_the_function_without_its_folder(error: str, told: str) -> None:
    assert with_first_place(error) == told
