"""The writer's settings: defaults that its users may rely on, and the rules."""

from dataclasses import dataclass

import pytest

from dsql_outbox.outbox import Database
from dsql_outbox.writer import Writer, WriterSettings
from dsql_outbox.writer.budgets import budgets_of
from dsql_outbox.writer.tuned_settings import TunedSettings


def test_the_defaults_are_the_documented_ones() -> None:
    assert WriterSettings() == WriterSettings(
        timeout=30.0,
        max_retries=None,
        max_outage=10.0,
        max_connections=10,
        coalesce=0,
        topic="events.{event_type}",
        source="/dsql-outbox",
    )


@dataclass(frozen=True, kw_only=True)
class OfATeam(WriterSettings):
    """Settings of a user's own class, with a field that is not ours."""

    team: str = "loans"


def test_settings_of_a_users_own_class_serve() -> None:
    Writer(Database("postgresql://localhost/db"), OfATeam(max_outage=3)).close()


def test_the_origin_retries_three_times_after_100_200_and_400_ms() -> None:
    settings = WriterSettings.origin()
    assert settings == WriterSettings(timeout=None, max_retries=3)
    (budget,) = {(each.base, each.cap, each.jitter) for each in budgets_of(settings)}
    assert budget == (0.1, 2.0, 0.0)


@pytest.mark.parametrize("max_retries", [None, 3])
def test_the_waits_of_a_call_with_a_time_limit_are_random(max_retries: int | None) -> None:
    settings = WriterSettings(max_retries=max_retries)
    assert {each.jitter for each in budgets_of(settings)} == {1.0}


def test_an_idle_connection_is_replaced_in_lambda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    assert TunedSettings.of(WriterSettings()).max_idle is None
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    assert TunedSettings.of(WriterSettings()).max_idle == 30.0


def test_a_short_timeout_needs_no_other_setting() -> None:
    assert WriterSettings(timeout=0.5).max_outage == 10.0


def test_no_retry_is_a_choice() -> None:
    assert TunedSettings(max_retries=0, max_outage=0).max_retries == 0
