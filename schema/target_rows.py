"""The targets of the outbox, as a publisher and an operator see them."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.settings import DEFAULT_TARGET

TargetKind = Literal["sink", "model"]
"""Whether the publishers of a target send its messages to a broker, or apply them."""

TargetState = Literal["opening", "filling", "running", "dropped"]
"""Writers insert messages unless it is dropped; publishers relay them once it is running.

- ``opening``: writers insert messages from the commit of ``targets add`` on. The transactions that
  began before may not know the target, so it waits for their ends.
- ``filling``: a fill inserts the messages of the stored events. The row of the fill exists since
  ``targets add``; `Targets` takes it in this state only.
- ``running``: the commit of this state adds the rows of ``outbox_leases`` for its shards. Without
  them no publisher can own a shard, so they are what starts the relay.
- ``dropped``: writers insert nothing, and its leases are gone, except those of the default target,
  which say how many shards there are. Its name is not used again.

docs/relay.md ("How a target opens") says why.
"""

_TAKERS: Final = {"sink": "a publisher with a sink", "model": "a publisher that applies"}


class TargetRow(NamedTuple):
    """A row of ``target_list`` or ``target_known``. `types` is an array literal; None: all.

    `events` and the columns after it say how far its fill is; None: it has none.
    """

    name: str
    kind: TargetKind
    first_shard: int
    types: str | None
    state: TargetState
    events: int | None = None
    messages: int | None = None
    forgotten: int | None = None


def metric_name(target: str) -> str | None:
    """Return the name of a target for a metric; None for the default target, which has none."""
    return None if target == DEFAULT_TARGET else target


def require_target(rows: Sequence[TargetRow], name: str, kind: TargetKind | None) -> TargetRow:
    """Return the target of a name. Raises `SettingsError`, which names those that would do.

    It must have the kind, unless that is None, and must not be dropped.
    """
    usable = [row for row in rows if row.state != "dropped" and kind in {None, row.kind}]
    names = ", ".join(row.name for row in usable) or (
        f"none: run `dsql-outbox targets add NAME --kind {kind or 'sink'}`"
    )
    present = f"there {'is only' if len(usable) == 1 else 'are'} {names}"
    found = next((row for row in rows if row.name == name), None)
    if found is None:
        raise SettingsError(f"there is no target {name!r}, {present}")
    if found.state == "dropped":
        raise SettingsError(f"target {name} was dropped, {present}")
    if kind not in {None, found.kind}:
        raise SettingsError(
            f"target {name} is a {found.kind}, not for {_TAKERS[kind or found.kind]}; {present}"
        )
    return found


def require_running(rows: Sequence[TargetRow], name: str) -> None:
    """Raise `SettingsError` unless the target of a name is running."""
    found = require_target(rows, name, None)
    if found.state != "running":
        raise SettingsError(f"target {name} is {found.state}, and takes no replay before it runs")
