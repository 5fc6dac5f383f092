"""Answers: which messages of a call of the sink have one, and which runs have ended; no I/O."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, get_args

from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.port import Answer, Delivered, NotAttempted, Outcome

_OUTCOMES: Final = frozenset(get_args(Outcome))


class Answers:
    """The answers for the messages of one call, which gives a sink this object as its `answer`.

    The answers of a run come in the order of its messages, and any other one than `Delivered` ends
    it. One behind that end counts for nothing. What counts goes to `take`, which acts on it, and
    then to `told`, which reports it.
    """

    def __init__(self, messages: Sequence[Message], take: Answer) -> None:
        self._messages = messages
        self._take = take
        self._outcomes: dict[int, Outcome] = {}
        self._ended: set[str] = set()
        """The keys of the runs that ended before their last message."""
        self.told: Callable[[int, Outcome], None] = _tell_nobody
        self.fault: tuple[int, str] | None = None
        """The first answer that breaks the contract of sinks: its index, and how."""

    def __call__(self, index: int, outcome: Outcome, /) -> None:
        """Take the answer for one message."""
        if (fault := self._fault(index, outcome)) is not None:
            self.fault = self.fault or (index, fault)
        elif not (self._ended and self._messages[index].key in self._ended):
            self._take(index, outcome)  # first: it fails in another thread, and the message waits
            self._outcomes[index] = outcome
            if type(outcome) is not Delivered:
                self._ended.add(self._messages[index].key)
            self.told(index, outcome)

    def _fault(self, index: int, outcome: Outcome) -> str | None:
        messages, outcomes, ended = self._messages, self._outcomes, self._ended
        if not 0 <= index < len(messages):
            return f"is for none of {len(messages)} messages"
        if type(outcome) not in _OUTCOMES:
            return f"is a {type(outcome).__name__}, which is no outcome"
        if index in outcomes:
            return "is the second one"
        if ended and messages[index].key in ended:
            if type(outcome) is Delivered:
                return "is Delivered, and that for a message before it in its run is not"
        elif index and index - 1 not in outcomes and messages[index - 1].key == messages[index].key:
            return "came before that for the message before it in its run"
        return None

    def end(self) -> None:
        """End the runs that wait: their messages were not attempted."""
        self.end_runs(self.missing())

    def end_runs(self, indexes: Iterable[int]) -> None:
        """End the runs of those of some messages that wait: they were not attempted."""
        for index in self.waiting(indexes):
            if (key := self._messages[index].key) not in self._ended:
                self._ended.add(key)
                self._take(index, NotAttempted())

    def waiting(self, indexes: Iterable[int]) -> list[int]:
        """Those of some messages that have no answer, and whose run has not ended."""
        messages, outcomes, ended = self._messages, self._outcomes, self._ended
        found = [index for index in indexes if index not in outcomes]
        return [index for index in found if messages[index].key not in ended] if ended else found

    def missing(self) -> list[int]:
        """The messages that have no answer."""
        number, outcomes = len(self._messages), self._outcomes
        return [index for index in range(number) if index not in outcomes]

    def counts(self) -> dict[str, int]:
        """How many messages have which answer, by the name of its class."""
        counts = Counter(type(outcome).__name__ for outcome in self._outcomes.values())
        counts[NotAttempted.__name__] += len(self._messages) - len(self._outcomes)
        return dict(+counts)

    def has_delivered(self, indexes: Iterable[int]) -> bool:
        """Whether one of some messages was delivered."""
        return any(type(self._outcomes.get(index)) is Delivered for index in indexes)


def _tell_nobody(_index: int, _outcome: Outcome) -> None:
    """Report no answer."""
