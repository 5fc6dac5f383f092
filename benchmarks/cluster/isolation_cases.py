"""Hermitage's cases as schedules of two or three sessions, and their judgement: pure.

The cases are those of https://github.com/ept/hermitage (Martin Kleppmann), rewritten for a
table with the rows 1 = 10 and 2 = 20. A session begins its transaction at its first step.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

Rows = Mapping[int, int]
"""Rows of a case: the key and its value."""

FIRST_ROWS: Final[Rows] = {1: 10, 2: 20}


class Step(NamedTuple):
    """One statement of one session.

    `literals` fill in the statement `name`. `may_wait` says that PostgreSQL lets it wait for
    another session. `expected` are the rows that snapshot isolation shows, None for a statement
    that reads nothing.
    """

    session: int
    name: str
    literals: Mapping[str, int]
    may_wait: bool
    expected: Rows | None


class Case(NamedTuple):
    """A schedule and its outcome under snapshot isolation.

    `anomaly` is the name in the literature. With `conflict`, the transactions of sessions 1 and
    2 must not both commit. With `allowed`, snapshot isolation does not exclude the anomaly,
    and both may commit.
    """

    name: str
    anomaly: str
    schedule: str
    conflict: bool = False
    allowed: bool = False

    def steps(self) -> Iterator[Step]:
        """The statements in order."""
        return map(_step, map(str.strip, self.schedule.split(";")))


class Ran(NamedTuple):
    """The outcome of a schedule.

    `reads` has the rows that each step returned: None if it returned none, failed, or did not
    run. `committed` are the sessions in the order of their commits, and `left` the rows after
    them.
    """

    reads: Sequence[Rows | None]
    committed: Sequence[int]
    left: Rows


Result = Literal["prevented", "possible", "broken"]


def judge(case: Case, ran: Ran) -> Result:
    """Whether the anomaly was prevented; `broken` if snapshot isolation excludes the result.

    Only reads of committed transactions count, as in Adya's definitions.
    """
    steps = list(case.steps())
    seen = [
        (rows, step.expected)
        for step, rows in zip(steps, ran.reads, strict=True)
        if rows is not None and step.session in ran.committed
    ]
    strange = any(rows != expected for rows, expected in seen)
    if strange or ran.left != _serial(steps, ran.committed):
        return "broken"
    both = {1, 2} <= set(ran.committed)
    if case.allowed:
        return "possible" if both else "prevented"
    return "broken" if case.conflict and both else "prevented"


def _serial(steps: Sequence[Step], committed: Sequence[int]) -> Rows:
    """The rows if the committed transactions had run one after the other."""
    rows = dict(FIRST_ROWS)
    for session in committed:
        for step in steps:
            if step.session == session:
                _apply(rows, step)
    return rows


def _apply(rows: dict[int, int], step: Step) -> None:
    match step.name, [*step.literals.values()]:
        case (("row_set" | "row_add"), [key, value]):
            rows[key] = value
        case "rows_raise", []:
            rows.update({key: value + 10 for key, value in rows.items()})
        case "rows_remove", [value]:
            for key in [key for key, found in rows.items() if found == value]:
                del rows[key]
        case _:
            pass


_VERBS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "read": ("row", ("position",)),
    "all": ("rows", ()),
    "divisible": ("rows_divisible", ("divisor",)),
    "lock": ("row_lock", ("position",)),
    "set": ("row_set", ("position", "flag")),
    "add": ("row_add", ("position", "flag")),
    "raise": ("rows_raise", ()),
    "remove": ("rows_remove", ("flag",)),
    "commit": ("COMMIT", ()),
    "abort": ("ROLLBACK", ()),
}


def _step(line: str) -> Step:
    """Read a line such as ``2 read 1 -> 1=10``; after the arrow stand the expected rows.

    A verb with a question mark may wait.
    """
    said, arrow, shown = line.partition(" ->")
    session, verb, *values = said.split()
    name, fields = _VERBS[verb.rstrip("?")]
    literals = dict[str, int](zip(fields, map(int, values), strict=True))
    pairs = [pair.split("=") for pair in shown.split()]
    expected = {int(key): int(value) for key, value in pairs} if arrow else None
    return Step(int(session), name, literals, verb.endswith("?"), expected)


CASES: Final = (
    Case(
        "G0",
        "dirty write",
        "1 set 1 11; 2 set? 1 12; 1 set 2 21; 1 commit; 2 set 2 22; 2 commit",
        conflict=True,
    ),
    Case(
        "G1a",
        "aborted read",
        "1 set 1 101; 2 all -> 1=10 2=20; 1 abort; 2 all -> 1=10 2=20; 2 commit",
    ),
    Case(
        "G1b",
        "intermediate read",
        "1 set 1 101; 2 all -> 1=10 2=20; 1 set 1 11; 1 commit; 2 all -> 1=10 2=20; 2 commit",
    ),
    Case(
        "G1c",
        "circular information flow",
        "1 set 1 11; 2 set 2 22; 1 read 2 -> 2=20; 2 read 1 -> 1=10; 1 commit; 2 commit",
    ),
    Case(
        "OTV",
        "observed transaction vanishes",
        "1 set 1 11; 1 set 2 19; 2 set? 1 12; 1 commit; 3 read 1 -> 1=11; 2 set 2 18;"
        "3 read 2 -> 2=19; 2 commit; 3 read 2 -> 2=19; 3 read 1 -> 1=11; 3 commit",
        conflict=True,
    ),
    Case(
        "PMP",
        "predicate-many-preceders",
        "1 divisible 30 ->; 2 add 3 30; 2 commit; 1 divisible 3 ->; 1 commit",
    ),
    Case(
        "PMP write",
        "predicate-many-preceders, for a write",
        "1 raise; 2 remove? 20; 1 commit; 2 commit",
        conflict=True,
    ),
    Case(
        "P4",
        "lost update",
        "1 read 1 -> 1=10; 2 read 1 -> 1=10; 1 set 1 11; 2 set? 1 11; 1 commit; 2 commit",
        conflict=True,
    ),
    Case(
        "G-single",
        "read skew",
        "1 read 1 -> 1=10; 2 read 1 -> 1=10; 2 read 2 -> 2=20; 2 set 1 12; 2 set 2 18; 2 commit;"
        "1 read 2 -> 2=20; 1 commit",
    ),
    Case(
        "G-single predicate",
        "read skew, by a predicate",
        "1 divisible 5 -> 1=10 2=20; 2 set 1 12; 2 commit; 1 divisible 3 ->; 1 commit",
    ),
    Case(
        "G-single write",
        "read skew, for a write",
        "1 read 1 -> 1=10; 2 all -> 1=10 2=20; 2 set 1 12; 2 set 2 18; 2 commit; 1 remove 20;"
        "1 commit",
        conflict=True,
    ),
    Case(
        "G2-item",
        "write skew",
        "1 read 1 -> 1=10; 1 read 2 -> 2=20; 2 read 1 -> 1=10; 2 read 2 -> 2=20; 1 set 1 11;"
        "2 set 2 21; 1 commit; 2 commit",
        allowed=True,
    ),
    Case(
        "G2",
        "anti-dependency cycle, by a predicate",
        "1 divisible 3 ->; 2 divisible 3 ->; 1 add 3 30; 2 add 4 42; 1 commit; 2 commit",
        allowed=True,
    ),
    Case(
        "G2-item FOR UPDATE",
        "write skew, with the rows locked that are read",
        "1 lock 1 -> 1=10; 1 lock 2 -> 2=20; 2 lock? 1 -> 1=10; 2 lock 2 -> 2=20; 1 set 1 11;"
        "1 commit; 2 set 2 21; 2 commit",
        conflict=True,
    ),
)
"""In the order in which they run; the last one is not Hermitage's."""
