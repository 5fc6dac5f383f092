"""A server that plans the single form of a write, and refuses to run it on rows."""

from collections.abc import Callable
from typing import Any

_FUNCTION = r"""CREATE FUNCTION outbox.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_catalog.current_query() {applies} '^(\s*--[^\n]*\n)*\s*with' THEN
    RAISE EXCEPTION 'not here' USING ERRCODE = '{sqlstate}';
  END IF;
  RETURN NEW;
END $$"""
_TRIGGER = """CREATE TRIGGER refuse BEFORE INSERT ON outbox.entities
FOR EACH ROW EXECUTE FUNCTION outbox.refuse()"""


def refuse(execute: Callable[[Any], object], sqlstate: str, applies: str = "~*") -> None:
    """Refuse statements that begin with WITH, though not their EXPLAIN, by a trigger."""
    execute(_FUNCTION.format(applies=applies, sqlstate=sqlstate))
    execute(_TRIGGER)


def accept(execute: Callable[[Any], object]) -> None:
    """Refuse nothing any more."""
    execute("DROP FUNCTION outbox.refuse() CASCADE")
