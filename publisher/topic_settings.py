"""Settings per topic for messages that fail."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple

from dsql_outbox.observability.facts import PublishConsequence
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.settings import require_positive, require_whole

OnDeadLetter = Literal["release", "block"]

_WILDCARDS: Final = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class TopicSettings:
    """Settings of the topics that match a pattern of `PublisherSettings.topics`.

    None takes the value of the field of `PublisherSettings` with the same name.

        >>> TopicSettings(attempts=3).attempts
        3
    """

    attempts: int | None = None
    """Delivery attempts after which the publisher gives up on a message."""

    backoff_base: float | None = None
    """Seconds between the first and the second attempt, doubled for each later one."""

    backoff_cap: float | None = None
    """The longest wait between two attempts, in seconds."""

    on_dead_letter: OnDeadLetter | None = None
    """``release`` or ``block`` the subject of a message that the publisher gives up on."""


class FailureRules(NamedTuple):
    """The settings that hold for one topic; times are seconds."""

    attempts: int
    backoff_base: float
    backoff_cap: float
    on_dead_letter: OnDeadLetter

    def with_changes(self, by: TopicSettings) -> "FailureRules":
        """These rules, with each field that is set in `by`."""
        found = {name: getattr(by, name) for name in self._fields}
        return self._replace(**{name: value for name, value in found.items() if value is not None})

    def consequence(self, attempts: int, *, is_rejected: bool) -> PublishConsequence:
        """Return the consequence of a failure."""
        if not is_rejected and attempts < self.attempts:
            return "retry"
        return "dead_letter" if self.on_dead_letter == "release" else "block"

    def backoff(self, attempts: int) -> float:
        """Seconds until the next attempt after `attempts` failures."""
        return min(self.backoff_cap, self.backoff_base * 2.0 ** min(attempts - 1, 64))

    def require_valid(self, owner: str) -> None:
        """Raise `SettingsError`, which names the owner and the field, for an invalid value."""
        positive = {"attempts": self.attempts, "backoff_base": self.backoff_base}
        require_positive(owner, positive | {"backoff_cap": self.backoff_cap})
        require_whole(owner, {"attempts": self.attempts})
        if not self.backoff_cap >= self.backoff_base:
            raise SettingsError(
                f"{owner}.backoff_cap must not be below backoff_base, {self.backoff_base:g} s; "
                f"got {self.backoff_cap:g}"
            )
        if self.on_dead_letter not in {"release", "block"}:
            raise SettingsError(
                f"{owner}.on_dead_letter must be release or block, got {self.on_dead_letter}"
            )


def require_valid_topics(owner: str, rules: FailureRules, topics: Mapping[str, object]) -> None:
    """Raise `SettingsError` for settings of topics that are invalid or can never be used."""
    before: list[str] = []
    for pattern, settings in topics.items():
        name = f"{owner}[{pattern!r}]"
        if not pattern:
            raise SettingsError(f"{name}: a pattern must not be empty")
        if not isinstance(settings, TopicSettings):
            raise SettingsError(f"{name} must be TopicSettings, got {type(settings).__name__}")
        hiding = [each for each in before if _hides(each, pattern)]
        if hiding:
            raise SettingsError(f"{name} is never used: {hiding[0]!r} comes first and matches, too")
        rules.with_changes(settings).require_valid(name)
        before.append(pattern)


def _hides(earlier: str, pattern: str) -> bool:
    """Whether no topic can match `pattern` and not `earlier`; False if that is hard to decide."""
    is_topic = _WILDCARDS.isdisjoint(pattern)
    return earlier == "*" or (is_topic and fnmatchcase(pattern, earlier))
