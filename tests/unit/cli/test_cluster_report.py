"""What the doctor makes of 20 writes and of a take-over, and what its report does not show."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from benchmarks.cluster.__main__ import kept
from benchmarks.cluster.probes import dpu, judge_costs
from benchmarks.cluster.report_file import Place, dated, markdown, place_of
from benchmarks.cluster.takeover import SentMessage, judge_takeover
from benchmarks.cluster.twenty_writes import judge_writes

from dsql_outbox.cli.doctor.finding import Finding, Report
from dsql_outbox.outbox import Message, Receipt

RECEIPTS = [
    Receipt(UUID(int=n), "committed", attempts=2, conflicts=1, position=n, entities=())
    for n in range(20)
]


def message(n: int, version: int) -> Message:
    headers = {"sequence": str(version)}
    return Message(UUID(int=n), "t", f"Car/{n % 5}", headers, b"{}", str(n), 0, 0)


MESSAGES = [message(n, n // 5 + 1) for n in range(20)]


def test_20_of_20_are_ok_and_19_are_a_failure() -> None:
    assert judge_writes(RECEIPTS, MESSAGES).verdict == "ok"
    lost = judge_writes(RECEIPTS[1:], MESSAGES)
    assert (lost.verdict, lost.values["stored"], lost.values["arrived"]) == ("fail", 19, 19)
    undelivered = judge_writes(RECEIPTS, MESSAGES[:-1])
    assert (undelivered.verdict, undelivered.values["arrived"]) == ("fail", 19)


def test_versions_in_another_order_are_a_failure() -> None:
    told = judge_writes(RECEIPTS, [*MESSAGES[5:10], *MESSAGES[:5], *MESSAGES[10:]])
    assert (told.verdict, told.values["in_order"]) == ("fail", False)


def line(n: int, version: int) -> SentMessage:
    return SentMessage("Car/1", {"ce-id": str(UUID(int=n)), "ce-sequence": str(version)})


@pytest.mark.parametrize(
    ("versions", "verdict", "counts"),
    [
        ([0, 1, 2], "ok", (0, 0, 0)),
        ([0, 1, 1, 2], "ok", (0, 0, 1)),
        ([0, 1, 0, 1, 2], "ok", (0, 0, 2)),
        ([0, 2], "fail", (1, 0, 0)),
        ([0, 2, 1], "fail", (0, 1, 0)),
    ],
    ids=["clean", "again", "all again", "lost", "disorder"],
)
def test_a_take_over_may_send_again_but_neither_lose_nor_reorder(
    versions: list[int], verdict: str, counts: tuple[int, int, int]
) -> None:
    told = judge_takeover(RECEIPTS[:3], [line(n, n + 1) for n in versions], 3.1)
    assert told.verdict == verdict
    assert (told.values["lost"], told.values["out_of_order"], told.values["again"]) == counts


def test_a_report_has_neither_host_nor_role_and_says_the_region() -> None:
    host = "abc123.dsql.us-east-1.on.aws"
    info: Any = SimpleNamespace(host=host, hostaddr="10.1.2.3", user="payments")
    told = f"payments at {host} (10.1.2.3) | cluster abc123; payments-app stays"
    finding = Finding("role", "ok", told, f"ask {host}", values={"user": "payments", "n": 1})
    page = markdown(dated(Report("outbox", failed=False, findings=(finding,)), place_of(info)))
    for secret in ("abc123", "10.1.2.3", "payments "):
        assert secret not in page
    assert "| AWS Region | us-east-1 |" in page
    assert r"ROLE at HOST (HOST) \| cluster HOST; payments-app stays; ask HOST" in page
    about, line = map(json.loads, page.split("```jsonl\n")[1].split("```")[0].splitlines())
    assert (about["region"], line["values"]) == ("us-east-1", {"user": "ROLE", "n": 1})


def test_a_report_has_all_that_was_found_however_the_run_ends(tmp_path: Path) -> None:
    def found() -> Iterator[Finding]:
        yield Finding("clock", "ok", "in time")
        yield Finding("storm", "fail", "lost")
        raise KeyboardInterrupt

    file = tmp_path / "report.md"
    names = ["clock", "storm", "hour"]
    with pytest.raises(KeyboardInterrupt):
        list(kept(found(), names, "outbox", Place({"db.example": "HOST"}, None), file))
    page = file.read_text()
    assert "Not complete. Still to come: hour." in page
    about, *lines = map(json.loads, page.split("```jsonl\n")[1].split("```")[0].splitlines())
    assert (about["report"]["failed"], about["missing"]) == (True, ["hour"])
    assert [line["name"] for line in lines] == names[:2]


PLAN = """\
Insert on outbox  (cost=0.00..0.01 rows=0 width=0) (actual time=0.4..0.4 rows=0 loops=1)
  Output: '{text}'::json
Statement DPU Estimate:
  Compute: 0.01607 DPU
  Read: 0.04312 DPU
  Write: {write} DPU
  Total: 0.05918 DPU"""


def test_the_cost_of_a_statement_is_read_from_its_plan() -> None:
    lines = PLAN.format(text="Total 9.9 DPU", write=0.5).splitlines()
    assert (dpu(lines), dpu(lines, "Write"), dpu(lines, "Stream")) == (0.05918, 0.5, None)
    assert dpu(["Insert on outbox"]) is None
    visit: Any = SimpleNamespace(is_dsql=True)
    assert judge_costs("costs", {"a": 1.5, "b": 2.0}, "2 texts", visit).text == (
        "DPU of 2 texts: a 1.5, b 2.0"
    )
    assert judge_costs("costs", {"a": 1.5, "b": None}, "2 texts", visit).verdict == "unknown"
