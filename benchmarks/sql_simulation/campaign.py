"""Many schedules on a server of their own, which a process of a campaign runs."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.dsql.server import postgres_server
from tests.support.outbox_databases import OutboxDatabases

from .actors import SHARDS
from .defects import DEFECTS, planted
from .schedule import verdict


def broken_in(seeds: Sequence[int], defect: str | None) -> dict[int, list[str]]:
    """The rules that some seeds broke, on a server of their own."""
    logging.disable()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        folder.chmod(0o711)  # root's PostgreSQL runs as another user
        databases = OutboxDatabases(stack.enter_context(postgres_server(folder)))
        stack.callback(databases.close)
        broken: dict[int, list[str]] = {}
        for seed in seeds:
            with databases.lent(SHARDS) as url, ExitStack() as schedule:
                if defect is not None:
                    schedule.enter_context(planted(DEFECTS[defect]))
                broken[seed] = verdict(seed, url).broken
        return {seed: rules for seed, rules in broken.items() if rules}
