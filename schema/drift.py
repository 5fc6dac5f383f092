"""A difference between a database and what this version needs."""

from typing import Literal

import msgspec

Difference = Literal["missing", "different", "extra", "note"]
Part = Literal[
    "schema",
    "table",
    "view",
    "column",
    "key",
    "migration",
    "shard",
    "role",
    "right",
    "trigger",
    "rule",
    "policy",
]


class Drift(msgspec.Struct, frozen=True):
    """One difference, or a note.

    `part` is what differs, and `name` which one. `text` is a sentence with the difference
    and what corrects it. A note needs no correction: this version runs with it.
    """

    difference: Difference
    part: Part
    name: str
    text: str

    @property
    def is_note(self) -> bool:
        """Whether it is a note."""
        return self.difference == "note"
