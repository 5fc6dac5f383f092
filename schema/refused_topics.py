"""The topics that a publisher has paused by itself, as its row in ``outbox_publishers`` has them.

They are a JSON array of at most `MAX_NAMED` objects, and if there are more topics, their number
comes last. The comment of the table tells of names alone, which a version before wrote.
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from dsql_outbox.outbox.settings import MAX_NAME

MAX_NAMED: Final = 50
"""How many topics a publisher names, and a reader takes from a row."""

By = Literal["broker", "map"]


class RefusedTopic(msgspec.Struct, frozen=True, omit_defaults=True):
    """A topic that takes no messages: the broker refuses it, or the map fails for it.

    `by` and `seconds`, for how long so far, are None if the publisher does not tell them.
    """

    topic: str
    by: By | None = None
    seconds: float | None = None


class RefusedTopics(NamedTuple):
    """Some topics in the order of their names, and how many `more` there are."""

    topics: Sequence[RefusedTopic]
    more: int

    def to_json(self) -> str:
        """As the row has them."""
        return msgspec.json.encode([*self.topics, *([self.more] if self.more else [])]).decode()


_decode: Final = msgspec.json.Decoder(tuple[RefusedTopic | str | int, ...]).decode


def parse_refused(text: str, age: float) -> RefusedTopics:
    """Parse what a publisher told `age` seconds ago.

    None if another program wrote it in another form. A publisher of a version before writes the
    names alone. What another program wrote may be longer than a page can show: names end at the
    length of a topic, and topics beyond `MAX_NAMED` are counted.
    """
    try:
        found = _decode(text)
    except msgspec.MsgspecError:
        return RefusedTopics((), 0)
    more = sum(each for each in found if isinstance(each, int))
    named = [
        RefusedTopic(each) if isinstance(each, str) else each
        for each in found
        if not isinstance(each, int)
    ]
    topics = tuple(
        RefusedTopic(
            each.topic[:MAX_NAME],
            each.by,
            None if each.seconds is None else round(each.seconds + age, 3),
        )
        for each in named[:MAX_NAMED]
    )
    return RefusedTopics(topics, more + len(named) - len(topics))
