"""A difference between a database and what this version needs."""

from typing import Literal

import msgspec

Difference = Literal["missing", "different", "extra"]
Part = Literal["schema", "table", "view", "column", "key", "migration", "shard", "role", "right"]


class Drift(msgspec.Struct, frozen=True):
    """One difference.

    `part` is what differs, and `name` which one. `text` is a sentence with the difference
    and what corrects it.
    """

    difference: Difference
    part: Part
    name: str
    text: str
