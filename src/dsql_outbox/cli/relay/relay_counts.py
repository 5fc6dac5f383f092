"""The relayed messages of a run, in total and per topic: counted by a hook, shown as text."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final, NamedTuple

from dsql_outbox.observability.facts import CallEnded, CallStarted, Fact, RelayProgress
from dsql_outbox.observability.shown_text import duration

logger: Final = logging.getLogger("dsql_outbox")

_TOPICS: Final = 1_000
"""Topics that are counted by name; the text shows only a few of them."""

_TOLD: Final = 50
"""Topics whose first delivery since the start is logged."""

_SHOWN: Final = 8
_OLD: Final = 1.0
"""Seconds for which a message may wait before that is told in place of the lag."""
_WINDOW: Final = 20
"""Reads per rate: about 5 seconds on a terminal, which draws four times per second."""


class RelayCounts:
    """A hook that counts messages.

    `lag` is the age in seconds of the oldest message of the call that began last. `reached_broker`
    is what the relay told last.
    """

    def __init__(self) -> None:
        self.delivered = self.skipped = self.deleted = self.failed = self.dead = 0
        self.lag = 0.0
        self.paused: tuple[str, ...] = ()
        self.paused_more = 0
        self.reached_broker = True
        self.topics: Counter[str] = Counter()

    def __call__(self, fact: Fact, /) -> None:
        """Count a fact."""
        if isinstance(fact, CallStarted):
            if fact.committed_ns is not None:
                self.lag = max(0, fact.picked_up_ns - fact.committed_ns) / 1e9
        elif isinstance(fact, CallEnded):
            self._count(fact)
        elif isinstance(fact, RelayProgress):
            self.delivered += fact.delivered
            self.skipped += fact.skipped
            self.deleted += fact.deleted
            self.failed += fact.failed
            self.dead += fact.dead
            self.paused, self.paused_more = tuple(fact.paused), fact.paused_more
            self.reached_broker = fact.sink_available

    def takes_calls(self) -> bool:
        """No single message is shown."""
        return True

    def _count(self, fact: CallEnded) -> None:
        topic = fact.call.topic
        is_known = topic in self.topics or len(self.topics) < _TOPICS
        if is_known and fact.result == "delivered":
            if topic not in self.topics and len(self.topics) < _TOLD:
                # After a restart nobody knows any more that the topic was refused before.
                logger.info("Topic %s takes messages", topic)
            self.topics[topic] += fact.messages

    def __str__(self) -> str:
        """The totals."""
        skipped = f"skipped {self.skipped:,}, " if self.skipped else ""
        return f"relayed {self.delivered:,}, {skipped}failed {self.failed:,}, dead {self.dead:,}"


class _Look(NamedTuple):
    at: float
    delivered: int
    topics: Counter[str]


class CountsText:
    """The counts as text, with rates since the earlier calls.

    `now` gives seconds on a monotonic clock, and `oldest` how long the oldest message has waited.
    """

    def __init__(
        self,
        counts: RelayCounts,
        now: Callable[[], float] = monotonic,
        oldest: Callable[[], float] = float,
    ) -> None:
        self._counts = counts
        self._now = now
        self._oldest = oldest
        self._looks = deque([self._look()], maxlen=_WINDOW)
        self._told = str(counts)
        self._line = self._told

    def view(self) -> str:
        """Several lines for a terminal: the totals, then the topics with the most messages."""
        first, last = self._looks[0], self._look()
        self._looks.append(last)
        seconds = max(last.at - first.at, 0.001)
        rates = last.topics - first.topics
        total = self._totals((last.delivered - first.delivered) / seconds)
        return "\n".join([total, *self._topics(last.topics, rates, seconds), *self._paused()])

    def line(self) -> str:
        """One line for a log; it changes only when messages were relayed, failed or died."""
        if str(self._counts) != self._told:
            self._told = str(self._counts)
            first, last = self._looks[-1], self._look()
            self._looks.append(last)
            rate = (last.delivered - first.delivered) / max(last.at - first.at, 0.001)
            self._line = f"{self._told}, {rate:,.0f}/s, {self._lag()}"
        return self._line

    def _totals(self, rate: float) -> str:
        counts = self._counts
        lag = f"  {self._lag()}" if rate else ""
        skipped = f"{counts.skipped:,} skipped  " if counts.skipped else ""
        failed = f"{counts.failed:,} failed  {counts.dead:,} dead"
        return f"{counts.delivered:,} relayed  {rate:,.0f}/s{lag}  {skipped}{failed}"

    def _lag(self) -> str:
        """The age of what was sent last, unless a message of another subject has waited longer."""
        lag, oldest = self._counts.lag, self._oldest()
        if oldest <= max(lag, _OLD):
            return f"lag {duration(lag)}"
        return f"the oldest message waits for {duration(oldest)}"

    @staticmethod
    def _topics(counts: Counter[str], rates: Counter[str], seconds: float) -> Iterator[str]:
        for topic, count in counts.most_common(_SHOWN):
            yield f"{count:>12,}  {rates[topic] / seconds:>8,.0f}/s  {topic}"
        if len(counts) > _SHOWN:
            yield f"{'':>12}  {'':>8}    and {len(counts) - _SHOWN:,} topics more"

    def _paused(self) -> Iterator[str]:
        paused = self._counts.paused
        left = max(0, len(paused) - _SHOWN) + self._counts.paused_more
        if paused:
            more = f" and {left:,} more" if left else ""
            yield f"paused: {', '.join(paused[:_SHOWN])}{more}"

    def _look(self) -> _Look:
        # The event loop counts in another thread, and may add a topic during a copy.
        return _Look(self._now(), self._counts.delivered, Counter(dict(self._counts.topics)))
