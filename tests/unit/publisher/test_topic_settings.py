"""Settings per topic: which of them hold, and which are refused."""

import pickle
from typing import Any

import pytest

from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher import PublisherSettings, TopicSettings

LOANS = TopicSettings(attempts=3, on_dead_letter="block")


def test_a_topic_without_settings_has_those_of_the_publisher() -> None:
    settings = PublisherSettings(attempts=7, topics={"events.Loan*": LOANS})
    assert settings.for_topic("events.CarMoved") == PublisherSettings(attempts=7).for_topic("")


def test_a_missing_key_takes_the_value_of_the_publisher() -> None:
    settings = PublisherSettings(backoff_cap=60.0, topics={"events.Loan*": LOANS})
    same = PublisherSettings(attempts=3, backoff_cap=60.0, on_dead_letter="block")
    assert settings.for_topic("events.LoanPaid") == same.for_topic("")


def test_the_first_pattern_that_matches_counts() -> None:
    topics = {
        "events.LoanPaid": TopicSettings(attempts=1),
        "events.Loan?aid": TopicSettings(attempts=2),
        "*": TopicSettings(attempts=3),
    }
    settings = PublisherSettings(topics=topics)
    found = [settings.for_topic(f"events.{name}").attempts for name in ("LoanPaid", "LoanSaid")]
    assert found == [1, 2]
    assert settings.for_topic("EVENTS.LOANPAID").attempts == 3, "case matters"


def test_topics_that_the_caller_changes_later_change_nothing() -> None:
    topics = {"a": TopicSettings(attempts=1)}
    settings = PublisherSettings(topics=topics)
    topics["b"] = TopicSettings(attempts=2)
    assert settings.for_topic("b").attempts == PublisherSettings.attempts


@pytest.mark.parametrize("hours", [511 / 3600, 1, 5.5, 23, 24])
def test_a_message_that_is_refused_for_a_day_is_not_given_up(hours: float) -> None:
    rules, waited, failures = PublisherSettings().for_topic("events.CarMoved"), 0.0, 0
    while waited < hours * 3600:
        failures += 1
        assert rules.consequence(failures, is_rejected=False) == "retry", f"{waited / 3600:.2f} h"
        waited += rules.backoff(failures)


def test_rules_are_found_once_per_topic_and_only_so_many_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dsql_outbox.publisher.settings._KNOWN_TOPICS", 3)
    settings = PublisherSettings(topics={"t1": LOANS})
    assert settings.for_topic("t1") is settings.for_topic("t1")
    for n in range(20):
        assert settings.for_topic(f"t{n}").attempts == (3 if n == 1 else PublisherSettings.attempts)
        assert len(settings._rules) <= 3


def test_settings_with_topics_stay_values() -> None:
    settings = PublisherSettings(topics={"a": LOANS})
    settings.for_topic("a")
    assert settings == PublisherSettings(topics={"a": LOANS}) != PublisherSettings()
    assert hash(settings) == hash(PublisherSettings(topics={"a": LOANS}))
    assert pickle.loads(pickle.dumps(settings)).for_topic("a").attempts == 3


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        ({"a.*": TopicSettings(attempts=0)}, "['a.*'].attempts must be above 0, got 0"),
        (
            {"a": TopicSettings(backoff_base=float("nan"))},
            "['a'].backoff_base must be a finite number, got nan",
        ),
        (
            {"a": TopicSettings(backoff_base=301)},
            "['a'].backoff_cap must not be below backoff_base, 301 s; got 300",
        ),
        (
            {"a": TopicSettings(on_dead_letter="drop")},  # type: ignore[arg-type]
            "['a'].on_dead_letter must be release or block, got drop",
        ),
        ({"": LOANS}, "['']: a pattern must not be empty"),
        ({"a": {"attempts": 3}}, "['a'] must be TopicSettings, got dict"),
        ({"*": LOANS, "a.*": LOANS}, "['a.*'] is never used: '*' comes first and matches, too"),
        ({"a.?": LOANS, "a.b": LOANS}, "['a.b'] is never used: 'a.?' comes first"),
    ],
)
def test_settings_that_cannot_hold_are_refused_by_pattern_and_key(topics: Any, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        PublisherSettings(topics=topics)
    assert f"PublisherSettings.topics{said}" in str(error.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"attempts": 0}, "PublisherSettings.attempts must be above 0, got 0"),
        (
            {"backoff_base": 9.0, "backoff_cap": 8.0},
            "PublisherSettings.backoff_cap must not be below backoff_base, 9 s; got 8",
        ),
        ({"idle_max": 0}, "PublisherSettings.idle_max must be above 0, got 0"),
        ({"on_dead_letter": "drop"}, "PublisherSettings.on_dead_letter must be release or block"),
    ],
)
def test_the_values_of_the_publisher_obey_the_same_rules(values: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=f"^{said}"):
        PublisherSettings(**values)
