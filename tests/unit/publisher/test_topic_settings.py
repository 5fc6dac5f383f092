"""Settings per topic: which of them hold, and which are refused."""

import pickle

import pytest

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
