"""Events that the server cannot take: a trigger raises the SQLSTATE that their name ends with."""

from typing import Final

from .checked_tables import Tables

POISON: Final = "poison"


def poison(sqlstate: str) -> str:
    """The name of an event that fails with this SQLSTATE when it is stored."""
    return f"{POISON} {sqlstate}"


def refuse_poison(tables: Tables) -> None:
    """Make the database refuse such events; the trigger goes with its table."""
    tables.execute(
        "CREATE OR REPLACE FUNCTION public.choke() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'cannot take this one'"
        " USING ERRCODE = pg_catalog.split_part(NEW.event_name, ' ', 2); END $$"
    )
    tables.execute(
        "CREATE TRIGGER choke BEFORE INSERT ON outbox.business_events FOR EACH ROW"
        f" WHEN (NEW.event_name LIKE '{POISON} %') EXECUTE FUNCTION public.choke()"
    )
