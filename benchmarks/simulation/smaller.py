"""A schedule that fails, made smaller while it fails, and written as Python."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from .schedule import TOPICS, Clock, Replay, Schedule

T = TypeVar("T")

_TRIES: Final = 400


def smaller(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """Leave out parts that the failure does not need; runs `fails` a few hundred times."""
    tries = _TRIES
    while tries > 0:
        for one in islice(_simpler(schedule), tries):
            tries -= 1
            if fails(one):
                schedule = one
                break
        else:
            break
    return schedule


def _simpler(schedule: Schedule) -> Iterator[Schedule]:
    """The schedules with one thing less, or with a simpler one."""
    for n in range(len(schedule.faults)):
        yield replace(schedule, faults=_without(schedule.faults, n))
    for n in range(len(schedule.replays)):
        yield replace(schedule, replays=_without(schedule.replays, n))
    for n in range(len(schedule.writes)):
        replays = tuple(
            Replay(r.at, r.write - (r.write > n)) for r in schedule.replays if r.write != n
        )
        yield replace(schedule, writes=_without(schedule.writes, n), replays=replays)
    yield from _fewer_targets(schedule)
    if len(schedule.clocks) > 1:
        last = len(schedule.clocks) - 1
        kept = tuple(
            f if f.target or f.kind in TOPICS else f._replace(of=f.of % last)
            for f in schedule.faults
        )
        yield replace(schedule, clocks=schedule.clocks[:last], faults=kept)
    for n, clock in enumerate(schedule.clocks):
        if clock != Clock():
            yield replace(schedule, clocks=_with(schedule.clocks, n, Clock()))
    for n, write in enumerate(schedule.writes):
        for plain in (
            write._replace(rows=write.rows // 2 or 1),
            write._replace(late=0.0),
            write._replace(ahead=0.0),
            write._replace(topic=0),
            write._replace(retries=min(write.retries, 1), rejected=False, broken=False),
            write._replace(ill=None, ills=0),
            write._replace(early=0.0),
            write._replace(fate=None, times=0, every=1),
        ):
            if plain != write:
                yield replace(schedule, writes=_with(schedule.writes, n, plain))


def _fewer_targets(schedule: Schedule) -> Iterator[Schedule]:
    if number := len(schedule.targets):
        kept = tuple(fault for fault in schedule.faults if fault.target != number)
        yield replace(schedule, targets=schedule.targets[:-1], faults=kept)


def _without(items: tuple[T, ...], n: int) -> tuple[T, ...]:
    return items[:n] + items[n + 1 :]


def _with(items: tuple[T, ...], n: int, item: T) -> tuple[T, ...]:
    return (*items[:n], item, *items[n + 1 :])


def literal(schedule: Schedule) -> str:
    """The schedule as a Python expression, without what has its default."""
    lines: list[str] = []
    for field in fields(schedule):
        value = getattr(schedule, field.name)
        if isinstance(value, tuple) and value:
            items = [f"        {_item(item)}," for item in value]
            lines += [f"    {field.name}=(", *items, "    ),"]
        elif value != field.default:
            lines.append(f"    {field.name}={value!r},")
    return "\n".join(["Schedule(", *lines, ")"])


def _item(item: NamedTuple) -> str:
    defaults = item._field_defaults
    given = {k: v for k, v in item._asdict().items() if k not in defaults or v != defaults[k]}
    return f"{type(item).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items())})"
