"""What docs/lambda.md says an invocation of the relay costs: statements counted at the wire."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import pytest
from tests.support.checkout import ROOT
from tests.support.lambda_functions import Context
from tests.support.proxy.postgres_proxy import PostgresProxy

from dsql_outbox import Database, Publisher
from dsql_outbox.aws_lambda import relay_handler
from dsql_outbox.outbox.settings import DEFAULT_SHARDS
from dsql_outbox.publisher import Sink
from dsql_outbox.testing import MemorySink

PAGE: Final = " ".join((ROOT / "docs/lambda.md").read_text().split())
COST: Final = (ROOT / "docs/cost.md").read_text()
READ, WRITE = 0.00375 + 0.003, 0.008 + 0.00375  # DPU of a statement, without the bytes written
BYTE, LEAST_ROW, LEAST_WRITE = 0.00004883, 128, 1024
MONTH: Final = 730 * 60  # minutes
LOOK: Final = "Return the next rows of several ranges"


@asynccontextmanager
async def sink() -> AsyncGenerator[Sink]:
    yield MemorySink()


def invoke(proxy: PostgresProxy) -> dict[str, Any]:
    return relay_handler(Database(proxy.url), sink)({}, Context(60))


def cost(statements: list[str]) -> float:
    """DPU by the formulas of docs/cost.md: one row per shard of the leases, one row elsewhere."""
    total = 0.0
    for text in statements:
        code = re.sub(r"--.*", "", text).strip()
        rows = DEFAULT_SHARDS if code.startswith("UPDATE") else 1
        is_read = code.startswith(("SELECT", "WITH bounds", "WITH page"))
        total += READ if is_read else WRITE + BYTE * max(rows * LEAST_ROW, LEAST_WRITE)
    return total


def said(pattern: str) -> tuple[float, ...]:
    found = re.search(pattern, PAGE)
    assert found, pattern
    return tuple(float(number.replace(",", "")) for number in found.groups())


def test_what_an_idle_invocation_costs_is_on_the_page(proxy: PostgresProxy) -> None:
    invoke(proxy)
    proxy.reset_counts()
    opened = proxy.opened
    assert invoke(proxy)["ended"] == "empty"
    # The relay looks every 10 ms until the invocation has seen that nothing waits. How often that
    # is depends on the machine, so only the other statements have a number.
    # A look on PostgreSQL has settings before it, which Aurora DSQL does not take.
    sent = [text for text in proxy.statements if "set_config('plan_cache_mode'" not in text]
    looks = [text for text in sent if LOOK in text]
    others = [text for text in sent if LOOK not in text]
    connections, count, usual = said(
        r"opens (\d) connections and runs (\d+) statements, and it looks for rows about (\d) times"
    )
    assert proxy.opened - opened == connections
    assert len(others) == count
    assert looks
    (each,) = said(r"Together that is ([\d.]+) DPU by the formulas")
    assert cost([*others, *looks[:1] * int(usual)]) == pytest.approx(each, abs=0.02)
    month, dollars = said(r"that is ([\d,]+) DPU a month, \$([\d.]+)\.")
    assert month == pytest.approx(each * MONTH, rel=0.02)
    assert dollars == pytest.approx(month * 8 / 1e6, abs=0.005)
    hour, seconds = said(r"an idle daemon \(([\d.]+) DPU an hour\) costs .* every (\d+) s")
    assert f"| together | | | | {hour:g} |" in COST
    assert seconds == pytest.approx(3600 * each / hour, abs=1)


def test_what_an_invocation_costs_that_finds_no_shard_is_on_the_page(
    url: str, proxy: PostgresProxy
) -> None:
    async def while_another_owns_all() -> dict[str, Any]:
        async with Publisher(Database(url), MemorySink()):
            return await anyio.to_thread.run_sync(invoke, proxy)

    assert anyio.run(while_another_owns_all)["shards"] == 0
    (each,) = said(r"finds no shard costs ([\d.]+) DPU")
    assert cost(proxy.statements) == pytest.approx(each, abs=0.02)
