"""Pure: what a trial found, events that are lost, reordered within their key, and repeated."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Delivery(NamedTuple):
    """What the broker stored, against what was committed.

    An event is *missing* if the broker never stored it, *reordered* if it stored a later event of
    its key first, and *repeated* for each time that it stored it again.
    """

    missing: list[int]
    reordered: list[int]
    repeated: list[int]


def judge(keys: Mapping[int, str], stored: Sequence[int]) -> Delivery:
    """Compare what the broker stored, in its order, with the committed events.

    `keys` has the key of each committed event. The numbers of a key rise as it was committed.
    """
    seen: set[int] = set()
    newest: dict[str, int] = {}
    reordered, repeated = list[int](), list[int]()
    for number in stored:
        if number in seen:
            repeated.append(number)
            continue
        seen.add(number)
        key = keys[number]
        if newest.get(key, -1) > number:
            reordered.append(number)
        newest[key] = max(newest.get(key, -1), number)
    return Delivery(sorted(keys.keys() - seen), reordered, repeated)


class Result(NamedTuple):
    """What one trial found.

    `lost` events were neither stored by the broker, nor does the library mean to send them, nor
    does it keep them as given up. `seconds` is the time from the first process to the last message.
    """

    library: str
    harm: str
    seed: int
    lost: int
    reordered: int
    repeated: int
    kept: int
    waiting: int
    restarts: int
    seconds: float
    first: dict[str, list[int]]
    """The first numbers that are missing, reordered and repeated."""
