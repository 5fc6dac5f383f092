"""``make incidents``: stage incidents on real servers, to practise, or to read what they show.

Without a folder, one incident is staged and kept until Enter, or without a terminal until SIGTERM;
then its cause is told. With a folder, what an operator sees of each is written there after a
minute.
"""

import argparse
import shlex
import signal
import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import choice
from tempfile import TemporaryDirectory
from time import sleep
from typing import Final

from .incidents import INCIDENTS, Incident
from .look import look
from .prometheus import Prometheus, start_prometheus
from .shop import Shop

_HOLD: Final = 75.0  # seconds: an alert of a minute has fired


def main() -> None:
    """Stage the incidents that the command line names."""
    parser = argparse.ArgumentParser(prog="make incidents", description=__doc__)
    parser.add_argument("--only", metavar="NN,..", help="numbers, of " + ", ".join(INCIDENTS))
    parser.add_argument("--folder", type=Path, help="write what an operator sees there")
    given = parser.parse_args()
    numbers = given.only.split(",") if given.only else [*INCIDENTS]
    unknown = [number for number in numbers if number not in INCIDENTS]
    if unknown:
        parser.error(f"no incident {', '.join(unknown)}")
    if given.folder is None:
        _practise(INCIDENTS[choice(numbers)])
        return
    for number in numbers:
        with _staged(INCIDENTS[number], alerts=True) as (shop, prometheus):
            sleep(_HOLD)
            assert prometheus is not None
            look(shop, INCIDENTS[number], prometheus, given.folder / number)
            print(f"{number}: {INCIDENTS[number].cause}", flush=True)


def _practise(incident: Incident) -> None:
    with _staged(incident) as (shop, _):
        url = shop.environment("shop_operator")["DSQL_OUTBOX_DATABASE"]
        print(f"Something is wrong in this shop. In another shell:\n\n"
              f"  export DSQL_OUTBOX_DATABASE={shlex.quote(url)}\n"
              f"  dsql-outbox status\n\n"
              f"Logs: {shop.logs[0].parent}, readiness: http://{shop.listen[0]}/readyz\n"
              f"As the owner of the tables: {shop.postgres.url}\n", flush=True)  # fmt: skip
        _wait()
        print(f"\n{incident.cause}: {incident.remedy}")


def _wait() -> None:
    """Wait for Enter, Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        try:
            input("Enter tells the cause and ends the shop. ")
        except EOFError:  # there is no terminal
            signal.pause()


@contextmanager
def _staged(
    incident: Incident, *, alerts: bool = False
) -> Generator[tuple[Shop, Prometheus | None]]:
    """A shop that worked for some seconds, and then was harmed."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="dsql-outbox-shop-")))
        folder.chmod(0o711)  # started by root, the database runs as another user
        data = stack.enter_context(_disk(folder / "disk", incident.disk)) if incident.disk else None
        shop = stack.enter_context(Shop(folder / "logs", data=data, delay=incident.delay))
        shop.publish(*incident.options)
        incident.prepare(shop)
        writer = shop.start_writing()
        prometheus = None
        if alerts:
            (folder / "prometheus").mkdir()
            scraped = [*shop.listen[: len(shop.logs)], writer]
            found = start_prometheus(folder / "prometheus", scraped)
            prometheus = stack.enter_context(found)
        sleep(8)  # a healthy while, which metrics and logs show
        incident.harm(shop)
        yield shop, prometheus


@contextmanager
def _disk(folder: Path, size: int) -> Generator[Path]:
    """A small disk, which only root can make."""
    folder.mkdir()
    options = f"size={size}m,mode=777"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder / "data"
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


if __name__ == "__main__":
    main()
