"""The Python of docs/deploy.md: a program that embeds a publisher asks how it is."""

import re
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.support.checkout import ROOT
from tests.support.publisher.running_relays import event
from tests.support.waiting import wait_until

from dsql_outbox.operations import Health
from dsql_outbox.outbox import Database
from dsql_outbox.writer import Writer

pytestmark = [pytest.mark.anyio, pytest.mark.client]

PAGE = (ROOT / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE.partition("## In your own program\n")[2])


@pytest.fixture
def example() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(block, names)
    return names


async def test_the_documented_program_is_ready_while_it_relays(
    example: dict[str, Any],
    database: Database,
    writer: Writer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    health, sent = Health(), tmp_path / "sent.jsonl"
    writer.write(event("car-1", 1))
    await example["show"](database)
    assert re.fullmatch(r"1 \d+\.\d+ 0 0\n", capsys.readouterr().out)
    assert not health.ready().ready

    def relayed() -> bool:
        return health.ready().ready and sent.read_text().count("\n") == 1

    async with anyio.create_task_group() as group:
        group.start_soon(example["relay"], database, f"jsonl:{sent}", health)
        await anyio.to_thread.run_sync(wait_until, relayed)
        assert health.alive().alive
        group.cancel_scope.cancel()
    await example["show"](database)
    assert capsys.readouterr().out == "0 None 0 0\n"
