"""The writer of a night: ``writer URL RATE FILE`` writes at the defaults until SIGTERM.

Each line of the file is a word and the id of an event: ``sent``, with the digest of its bytes,
then ``stored`` or ``failed``.
"""

import asyncio
import sys
from pathlib import Path
from random import Random
from time import monotonic

from benchmarks.nemesis.fleet import cancel_on_sigterm
from benchmarks.nemesis.load import digest, events

from dsql_outbox import AsyncWriter, Database
from dsql_outbox.outbox.errors import OutboxError

SUBJECTS = 5_000


async def write(url: str, rate: float, file: Path) -> None:
    """Write an event every 1 / `rate` seconds, and those that are late at once."""
    cancel_on_sigterm()
    began = monotonic()
    with file.open("a", buffering=1) as notes:
        async with AsyncWriter(Database(url)) as writer:
            for n, (event_id, payload) in enumerate(events(Random(), sys.maxsize, SUBJECTS)):
                await asyncio.sleep(began + n / rate - monotonic())
                print("sent", event_id, digest(payload).hex(), file=notes)
                try:
                    await writer.write(payload)
                except OutboxError:
                    print("failed", event_id, file=notes)
                else:
                    print("stored", event_id, file=notes)


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])))
