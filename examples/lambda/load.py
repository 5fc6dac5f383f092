"""Send a workload to the function, here or deployed, and see how it fared.

    python examples/lambda/load.py --url http://127.0.0.1:8080 --events-per-type 5 --workers 4 --hot

Events of the four types in tests/data/events, with ids of this run's own. In
turn, each worker takes the next one: a car, its loan, a payment, a service. With
--hot all of them touch that car first, and there are five cars at most, so that
transactions conflict. Exits with 1 if one event failed.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

DATA = Path(__file__).parents[2] / "tests" / "data" / "events"
TYPES = ("car-created", "loan-created", "loan-payment-submitted", "car-service-done")
SHARED_CARS = 5

Event = dict[str, Any]


@dataclass(frozen=True)
class Sent:
    """How one event fared; `failure` is None if it is stored."""

    event_type: str
    seconds: float
    attempts: int
    failure: str | None


def workload(per_type: int, *, hot: bool) -> Iterator[Event]:
    """The events in turns, one of each type."""
    run = uuid4().hex[:8]
    templates = [json.loads((DATA / f"{name}.json").read_text()) for name in TYPES]
    for turn in range(per_type):
        place = turn % SHARED_CARS if hot else turn
        ids = {kind: f"{kind}-{run}-{turn}" for kind in ("LOAN", "PAYMENT", "SERVICE")}
        ids["CAR"] = f"CAR-{run}-{place}"
        events = [_made(template, ids) for template in templates]
        car = events[0]["entities"][0]
        for event in events[1:] if hot else ():
            event["entities"].insert(0, car)
        yield from events


def _made(template: Event, ids: dict[str, str]) -> Event:
    """The sample, as an event of now with other entities: each id by what it begins with."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    header = {**template["eventHeader"], "uuid": str(uuid4()), "createdDate": now, "savedDate": now}
    return {"eventHeader": header, "entities": _renamed(template["entities"], ids)}


def _renamed(value: Any, ids: dict[str, str]) -> Any:
    match value:
        case dict():
            return {name: _renamed(inner, ids) for name, inner in value.items()}
        case list():
            return [_renamed(inner, ids) for inner in value]
        case str() if "-N-" in value:
            return ids[value.partition("-")[0]]
        case _:
            return value


def send(url: str, event: Event, timeout: float) -> Sent:
    """Post one event; every end of it is a result."""
    body = json.dumps(event).encode()
    request = Request(f"{url}/api/v1/events", body, {"Content-Type": "application/json"})
    attempts, failure = 1, None
    began = perf_counter()
    try:
        with urlopen(request, timeout=timeout) as response:
            attempts = int(json.load(response)["attempts"])
    except HTTPError as error:
        failure = f"{error.code} {_text(error)}"
    except (OSError, HTTPException) as error:
        failure = str(getattr(error, "reason", error)) or type(error).__name__
    except (ValueError, KeyError, TypeError):
        failure = "the answer is not the function's"
    seconds = perf_counter() - began
    return Sent(event["eventHeader"]["eventType"], seconds, attempts, failure)


def _text(error: HTTPError) -> str:
    try:
        body = json.load(error)
        return " ".join(str(body[k]) for k in ("error", "error_type", "sqlstate") if body.get(k))
    except (ValueError, TypeError, AttributeError):
        return error.reason


def percentile(seconds: Sequence[float], share: float) -> float:
    """Milliseconds that `share` of them do not exceed, by nearest rank."""
    return sorted(seconds)[max(0, ceil(share * len(seconds)) - 1)] * 1000


def summary(sent: Sequence[Sent]) -> dict[str, Any]:
    """The numbers of some events."""
    seconds = [one.seconds for one in sent]
    return {
        "sent": len(sent),
        "stored": sum(one.failure is None for one in sent),
        "retried": sum(one.attempts > 1 for one in sent),
        "retries": sum(one.attempts - 1 for one in sent),
        **{f"p{n}_ms": round(percentile(seconds, n / 100), 1) for n in (50, 95, 99)},
    }


def report(sent: Sequence[Sent], elapsed: float) -> dict[str, Any]:
    """All numbers, for one type and for all."""
    types = {one.event_type: [o for o in sent if o.event_type == one.event_type] for one in sent}
    return {
        "total": summary(sent),
        "types": {name: summary(ones) for name, ones in sorted(types.items())},
        "failures": dict(Counter(one.failure for one in sent if one.failure).most_common()),
        "seconds": round(elapsed, 3),
    }


def show(console: Console, numbers: dict[str, Any]) -> None:
    """The report for people."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=True)
    total = numbers["total"]
    table.add_column("event type", "all")
    shown = [name for name in total if name != "retried"]
    for name in shown:
        table.add_column(name.replace("_", " "), str(total[name]), justify="right")
    for name, row in numbers["types"].items():
        table.add_row(name, *(str(row[column]) for column in shown))
    console.print(table)
    for failure, count in numbers["failures"].items():
        console.print(f"failed {count}: {failure}", style="red", highlight=False, markup=False)
    console.print(
        f"{total['stored']} of {total['sent']} stored, {total['retries']} retries "
        f"for {total['retried']} events, in {numbers['seconds']:.1f} s",
        highlight=False,
    )


def run(options: argparse.Namespace, console: Console) -> tuple[list[Sent], float]:
    """Send everything, with so many workers; the results and the seconds it took."""
    events = list(workload(options.events_per_type, hot=options.hot))
    url = options.url.rstrip("/")
    began = perf_counter()
    pool = ThreadPoolExecutor(options.workers)
    try:
        calls = [pool.submit(send, url, event, options.timeout) for event in events]
        done = track(
            as_completed(calls),
            "sending",
            len(calls),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        return [call.result() for call in done], perf_counter() - began
    finally:
        pool.shutdown(cancel_futures=True)


def positive(text: str) -> int:
    """A count of 1 or more."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {text}")
    return int(text)


def web_address(text: str) -> str:
    """A URL that begins as one of the web does."""
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError("must begin with http:// or https://")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Send events to the Lambda function.")
    parser.add_argument("--url", type=web_address, required=True, help="where /api/v1/events is")
    parser.add_argument("--events-per-type", type=positive, default=5, help="of 4 types (5)")
    parser.add_argument("--workers", type=positive, default=4, help="requests at a time (4)")
    parser.add_argument("--hot", action="store_true", help="share a few cars: conflicts")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for an answer (30)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args()
    try:
        sent, elapsed = run(options, Console(stderr=True))
    except KeyboardInterrupt:
        sys.exit(130)
    numbers = report(sent, elapsed)
    if options.json:
        print(json.dumps(numbers, indent=2))
    else:
        show(Console(), numbers)
    sys.exit(any(one.failure for one in sent))


if __name__ == "__main__":
    main()
