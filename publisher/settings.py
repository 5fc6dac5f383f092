"""How a publisher behaves, with the defaults that its users may rely on."""

from dataclasses import dataclass
from typing import Literal

from dsql_outbox.outbox import (
    MAX_TRANSACTION_ROWS,
    SettingsError,
    require_positive,
)
from dsql_outbox.publisher.leases.liveness import DEFAULT_LEASE


@dataclass(frozen=True, kw_only=True)
class PublisherSettings:
    """Settings of `Publisher`; times are seconds, sizes bytes.

    A round reads about `batch_rows` rows and `batch_bytes` bytes, spread over
    the shards. While there is more to read, the head of each shard is read
    again every `head_interval`, where late commits turn up. Without work the
    publisher waits from `idle_min` up to `idle_max`.

    A message that fails is tried again after `backoff_base`, doubled each time
    up to `backoff_cap`; after `attempts` it is given up. Then
    `on_dead_letter="release"` moves it to the dead letters and lets its subject
    go on, ``block`` keeps the subject waiting for an operator. A broker that
    cannot be reached is tried again soon; after `breaker_failures` in a row it
    is left alone for `breaker_open`, and then one message goes as a probe. It
    counts against no message, however long it takes.

    A shard is owned by one publisher, by a lease of `lease` that is renewed
    every `renew`. A publisher stops sending `margin` before its lease ends, and
    takes another's lease `grace` after that has ended, so a crash is made good
    after about `lease` + `grace`. When only its own broker path fails for
    `broker_patience`, it leaves its shards to others. A round that runs when
    the publisher is stopped may take `drain` more. See docs/leases.md.

    Raises `SettingsError` for a value that breaks a rule.
    """

    batch_rows: int = 500
    batch_bytes: int = 8 << 20
    head_interval: float = 1.0
    idle_min: float = 0.01
    idle_max: float = 1.0
    attempts: int = 10
    backoff_base: float = 1.0
    backoff_cap: float = 300.0
    breaker_failures: int = 5
    breaker_open: float = 5.0
    lease: float = DEFAULT_LEASE
    renew: float = 3.0
    margin: float = 1.0
    grace: float = 2.0
    broker_patience: float = 30.0
    drain: float = 20.0
    on_dead_letter: Literal["release", "block"] = "release"

    def __post_init__(self) -> None:
        """Refuse values that break a rule."""
        owner = "PublisherSettings"
        require_positive(
            owner,
            {
                "batch_rows": self.batch_rows,
                "batch_bytes": self.batch_bytes,
                "head_interval": self.head_interval,
                "idle_min": self.idle_min,
                "attempts": self.attempts,
                "backoff_base": self.backoff_base,
                "breaker_failures": self.breaker_failures,
                "breaker_open": self.breaker_open,
                "lease": self.lease,
                "renew": self.renew,
                "margin": self.margin,
                "grace": self.grace,
                "broker_patience": self.broker_patience,
                "drain": self.drain,
            },
        )
        if self.batch_rows * 2 > MAX_TRANSACTION_ROWS:
            raise SettingsError(
                f"{owner}.batch_rows must be {MAX_TRANSACTION_ROWS // 2} at most: "
                f"one transaction may change {MAX_TRANSACTION_ROWS} rows"
            )
        if self.idle_max < self.idle_min or self.backoff_cap < self.backoff_base:
            raise SettingsError(
                f"{owner}: idle_max and backoff_cap must not be below idle_min and backoff_base"
            )
        if self.renew >= self.lease - self.margin:
            raise SettingsError(
                f"{owner}.renew must be below lease - margin, {self.lease - self.margin:g} s, "
                f"or a lease ends before it is renewed; got {self.renew:g}"
            )
        if self.on_dead_letter not in {"release", "block"}:
            raise SettingsError(
                f"{owner}.on_dead_letter must be release or block, got {self.on_dead_letter}"
            )
