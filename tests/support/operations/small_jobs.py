"""The program ``dsql-outbox`` with pages of two events: a job over six has three transactions.

Where standard error is no terminal, it shows the progress of a job at once, and not every ten
seconds.
"""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from inspect import unwrap
from typing import Final
from unittest.mock import patch

from dsql_outbox.__main__ import main
from dsql_outbox.cli.progress_line import lines

PROGRAM: Final = ("-m", "tests.support.operations.small_jobs")
"""The words of a command's program, see `Command`."""

PAGE: Final = 2
"""Events of one transaction."""

_EVENT: Final = 2  # rows that a job changes for an event of one entity
_SIZES: Final[Mapping[str, int]] = {
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


@contextmanager
def small_pages() -> Generator[None]:
    """Let the jobs of this process have small pages, during the block."""
    with ExitStack() as patches:
        for name, size in _SIZES.items():
            patches.enter_context(patch(f"dsql_outbox.{name}", size))
        patches.enter_context(patch.dict(unwrap(lines).__kwdefaults__, every=_MOMENT))
        yield


if __name__ == "__main__":
    with small_pages():
        main()
