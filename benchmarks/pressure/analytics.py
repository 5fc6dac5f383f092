"""Long queries beside a queue: as many at a time as the test has, begun one after the other."""

import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import psycopg

_TABLE = """
CREATE TABLE IF NOT EXISTS analysed AS SELECT n, n % 97 AS amount FROM generate_series(1, 20000) n
"""

# It counts a table once a second: the harm is its snapshot, not the processor that it takes.
_QUERY = """
SELECT sum(counted.rows) FROM generate_series(1, %(seconds)s) AS second,
  LATERAL (SELECT pg_sleep(1) AS over, second AS n) AS pause,
  LATERAL (SELECT count(*) FILTER (WHERE amount > pause.n %% 50) AS rows FROM analysed) AS counted
WHERE pause.over IS NOT NULL
"""


class Analytics:
    """`queries` that take `seconds` each, again and again, until the block ends.

    They begin at equal distances, so that one snapshot is always held. `done` counts them.
    """

    def __init__(self, url: str, queries: int, seconds: int) -> None:
        self._url = url
        self._seconds = seconds
        self._ends = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(seconds * n / queries,))
            for n in range(queries)
        ]
        self._open: list[psycopg.Connection] = []
        self.done = 0

    def __enter__(self) -> Self:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(_TABLE)
        for each in self._threads:
            each.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.set()
        for connection in self._open:
            connection.cancel_safe()
        for each in self._threads:
            each.join()

    def _ask(self, later: float) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            self._open.append(connection)
            self._ends.wait(later)
            with suppress(psycopg.errors.QueryCanceled):
                while not self._ends.is_set():
                    connection.execute(_QUERY, {"seconds": self._seconds})
                    self.done += 1
