"""The losses of a writer process to conflicts, in the JSON form that the database holds.

A writer counts and stores them, and an operator reads them.
"""

from typing import Final

import msgspec


class EntityConflicts(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """The conflicts of one entity. Each counts transactions that touched it and conflicted.

    `alone`: the transaction touched no other entity. `behind`: it touched another one that
    had conflicted more often. `joint`: an event touches this entity together with others.
    `transact`: it is a run of `transact`. `coalesced`: its writer uses group commit.
    `exhausted`: an event of this entity was given up after it.

    `lost_seconds` is the time of the failed attempts and of the waits after them.
    `seen_seconds` is the time since the last conflict.
    """

    entity_type: str
    entity_id: str
    conflicts: int = 0
    alone: int = 0
    behind: int = 0
    joint: int = 0
    transact: int = 0
    coalesced: int = 0
    exhausted: int = 0
    lost_seconds: float = 0.0
    seen_seconds: float = 0.0


class WriterConflicts(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """The conflicts of one writer process.

    `transactions` conflicted, `exhausted` events were given up, and `lost_seconds` were lost
    in total. Each transaction counts once here, however many entities it touched.
    `is_partial` means that entities with few conflicts are left out.
    """

    transactions: int = 0
    exhausted: int = 0
    lost_seconds: float = 0.0
    is_partial: bool = False
    entities: list[EntityConflicts] = []


encode_conflicts: Final = msgspec.json.Encoder().encode
decode_conflicts: Final = msgspec.json.Decoder(WriterConflicts).decode
