"""The program ``dsql-outbox`` with pages of two events: a job over six has three transactions.

Where standard error is no terminal, it shows the progress of a job at once, and not every ten
seconds.
"""

import os
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from inspect import unwrap
from itertools import count
from typing import Final
from unittest.mock import patch

from dsql_outbox.__main__ import main
from dsql_outbox.cli.progress_line import lines

PROGRAM: Final = ("-m", "tests.support.operations.small_jobs")
"""The words of a command's program, see `Command`."""

PAGE: Final = 2
"""Events of one transaction."""

DIES_AT: Final = "SMALL_JOBS_DIES_AT"
"""In the environment: the number of the action on a file before which it kills itself."""

DIES_IN: Final = "SMALL_JOBS_DIES_IN"
"""In the environment: the folder of these files."""

_EVENT: Final = 2  # rows that a job changes for an event of one entity
_SIZES: Final[Mapping[str, int]] = {
    "operations.life.archive.MAX_ROWS": PAGE * _EVENT,
    "operations.life.old_events._PAGE": 2 * PAGE,
    "operations.life.erase._EVENTS": PAGE,
    "operations.life.forget.MAX_ROWS": PAGE * _EVENT,
    "operations.event_pages._ENTITY_PAGE": PAGE,
    "operations.event_pages._PAGE": PAGE,
    "operations.fills.PAGE_ROWS": PAGE,
    "operations.drop.MAX_ROWS": PAGE,
    "operations.replay.MAX_ROWS": PAGE,
    "operations.retry.MAX_ROWS": PAGE,
    "operations.requeue.MAX_ROWS": PAGE,
    "operations.undelivered.PAGE_ROWS": PAGE,
    "operations.verification.verifier.EVENT_ROWS": PAGE,
    "operations.verification.verifier.HEADER_ROWS": PAGE,
    "operations.verification.verifier.OTHER_ROWS": PAGE,
    "inbox.pruning.PAGE": PAGE,
}
_MOMENT: Final = 0.02  # seconds
_ACTIONS: Final = ("open", "os.rename", "os.remove")


@contextmanager
def small_pages() -> Generator[None]:
    """Let the jobs of this process have small pages, during the block."""
    with ExitStack() as patches:
        for name, size in _SIZES.items():
            patches.enter_context(patch(f"dsql_outbox.{name}", size))
        patches.enter_context(patch.dict(unwrap(lines).__kwdefaults__, every=_MOMENT))
        yield


def _die_at(number: int, folder: str) -> None:
    """Kill this process before its action of that number on the files of a folder."""
    actions = count(1)

    def die(action: str, words: tuple[object, ...]) -> None:
        if action in _ACTIONS and str(words[0]).startswith(folder) and next(actions) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)


if __name__ == "__main__":
    if DIES_AT in os.environ:
        _die_at(int(os.environ[DIES_AT]), os.environ[DIES_IN])
    with small_pages():
        main()
