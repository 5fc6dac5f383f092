"""The settings of a publisher, with their defaults and rules."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final, Self

from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.settings import require_positive

from .topic_settings import FailureRules, OnDeadLetter, TopicSettings, require_valid_topics

IDLE_MAX: Final = 0.05
"""Seconds: the default of `PublisherSettings.idle_max` on PostgreSQL."""

DSQL_IDLE_MAX: Final = 1.0
"""Seconds: the default of `PublisherSettings.idle_max` on Aurora DSQL."""

_KNOWN_TOPICS: Final = 1_000
"""The largest number of topics whose rules are remembered."""

DEFAULT_LEASE: Final = 10.0
"""Seconds: the default of `PublisherSettings.lease`."""


@dataclass(frozen=True, kw_only=True)
class PublisherSettings:
    """Settings of `Publisher`. See docs/relay.md for the behaviour behind them.

    Raises `SettingsError` for a value that is out of range or contradicts another.

        >>> loans = TopicSettings(attempts=3, on_dead_letter="block")
        >>> settings = PublisherSettings(lease=20.0, topics={"events.Loan*": loans})
        >>> settings.topics["events.Loan*"].attempts
        3
    """

    idle_max: float | None = None
    """The longest wait between two reads of an idle publisher, in seconds. The first wait without
    work is 10 ms, and each later one is twice as long. None: 0.05 on PostgreSQL, which costs the
    server less than 1 % of a core, and 1 on Aurora DSQL, where each read costs money."""

    doorbell: bool = False
    """Whether the publisher hears the doorbell that writers with ``doorbell`` ring after each
    commit, on PostgreSQL. It reads at once then. It needs a connection more, and polls as before:
    a ring may be lost."""

    attempts: int = 300
    """Delivery attempts after which the publisher gives up on a message. With the default waits
    they take 24 hours, so that a refusal of one night never costs the order of a subject."""

    backoff_base: float = 1.0
    """Seconds between the first and the second attempt of a message, doubled for each later
    one."""

    backoff_cap: float = 300.0
    """The longest wait between two attempts of a message, in seconds."""

    lease: float = DEFAULT_LEASE
    """Seconds that a lease lasts, by which one publisher owns a shard. `renew`, `margin` and
    `grace` follow from it. After a crash others take over within 1.2 times the lease. Lower it if
    a crash must be noticed sooner. Raise it if statements cost money."""

    drain: float = 20.0
    """Seconds that the running calls of the sink may take after `stop`. Raise it if the broker is
    slow. Lower it if a supervisor kills sooner."""

    on_dead_letter: OnDeadLetter = "release"
    """For a message that the publisher gives up on: ``release`` moves it to the dead letters, and
    its subject continues. ``block`` keeps the subject waiting for an operator."""

    topics: Mapping[str, TopicSettings] = field(
        default_factory=dict[str, TopicSettings], hash=False
    )
    """Settings for patterns of topics, such as ``events.Loan*``. The first pattern that matches
    counts. ``*`` and ``?`` also match a dot, and case matters (see `fnmatch.fnmatchcase`)."""

    _rules: dict[str, FailureRules] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Raise `SettingsError` for a value that breaks a rule."""
        owner = "PublisherSettings"
        require_positive(
            owner,
            {"lease": self.lease, "drain": self.drain}
            | ({} if self.idle_max is None else {"idle_max": self.idle_max}),
        )
        rules = self._own_rules()
        rules.require_valid(owner)
        object.__setattr__(self, "topics", dict(self.topics))  # the caller may change its own
        require_valid_topics(f"{owner}.topics", rules, self.topics)

    def for_database(self, database: Database) -> Self:
        """Return the settings with the default that depends on the kind of the database."""
        if self.idle_max is not None:
            return self
        return replace(self, idle_max=DSQL_IDLE_MAX if database.is_dsql else IDLE_MAX)

    @property
    def longest_idle(self) -> float:
        """`idle_max`, or its default on Aurora DSQL, if `for_database` did not choose one."""
        return DSQL_IDLE_MAX if self.idle_max is None else self.idle_max

    # Two renewals may fail before a publisher stops sending: 0.3 + 0.3 < 1 - 0.1. The clocks of
    # two publishers may differ by margin + grace, 0.3 of the lease, before both send at a time.
    @property
    def renew(self) -> float:
        """Seconds between two renewals of the leases."""
        return self.lease * 0.3

    @property
    def margin(self) -> float:
        """A publisher stops sending this many seconds before its lease ends."""
        return self.lease * 0.1

    @property
    def grace(self) -> float:
        """A publisher takes the lease of another one this many seconds after its end."""
        return self.lease * 0.2

    def for_topic(self, topic: str) -> FailureRules:
        """The rules for messages of a topic; cheap, so call it for every message that fails."""
        found = self._rules.get(topic)
        if found is None:
            if len(self._rules) >= _KNOWN_TOPICS:
                self._rules.clear()
            found = self._rules[topic] = self._find_rules(topic)
        return found

    def _find_rules(self, topic: str) -> FailureRules:
        rules = self._own_rules()
        for pattern, settings in self.topics.items():
            if fnmatchcase(topic, pattern):
                return rules.with_changes(settings)
        return rules

    def _own_rules(self) -> FailureRules:
        return FailureRules(*(getattr(self, name) for name in FailureRules._fields))
