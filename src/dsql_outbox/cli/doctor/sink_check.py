"""The check of a sink: whether it opens, and what its broker may lose of what it acknowledged."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from dsql_outbox.cli.event_loop import run
from dsql_outbox.outbox.errors import SinkUnavailable
from dsql_outbox.outbox.redaction import error_text
from dsql_outbox.publisher.sinks.port import Keeping, asks_keeping
from dsql_outbox.publisher.sinks.registry import open_sink

from .examined_database import ExaminedDatabase
from .finding import Finding

SINK: Final = "sink"
_LIMIT: Final = 1000


def sink(visit: ExaminedDatabase, url: str) -> Iterator[Finding]:
    """How the broker keeps the topics of the stored events, and what the URL names."""
    topics = [topic for (topic,) in visit.rows("doctor_topics", limit=_LIMIT)]
    try:
        found = run(_keepings, url, topics)
    except SinkUnavailable as error:
        yield Finding(SINK, "fail", str(error))
        return
    if not found:
        why = "none of the topics is there yet" if found is not None else "it cannot be asked"
        yield Finding(SINK, "ok", f"it opens; how its broker keeps messages: {why}")
    for keeping in found or ():
        text = f"{keeping.place}: {keeping.text}"
        if keeping.remedy is not None:
            yield Finding(SINK, "warn", text, keeping.remedy)
        else:
            yield Finding(SINK, "ok" if keeping.is_known else "unknown", text)


async def _keepings(url: str, topics: Collection[str]) -> Sequence[Keeping] | None:
    async with open_sink(url) as opened:
        ask = asks_keeping(opened)
        if ask is None:
            return None
        try:
            return await ask(topics)
        except SinkUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - any, as `AskKeeping` says
            text = f"it cannot be asked: {error_text(error)}"
            return [Keeping("its broker", text, is_known=False)]
