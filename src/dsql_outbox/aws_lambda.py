"""AWS Lambda: the relay as a function, and the doorbell that calls it (docs/lambda.md).

    handler = relay_handler(Database(url), "sqs://sqs.eu-west-1.amazonaws.com/1/events.fifo")

A schedule calls the function, and a producer rings it with a `Doorbell`. The doorbell
needs the extra [lambda]; the relay needs that of its sink.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, Final, Literal, Protocol

import msgspec

from dsql_outbox.observability.facts import Fact, RelayProgress, ShardsChanged, WriteEnded
from dsql_outbox.observability.hooks import Hook
from dsql_outbox.operations.status import Bounded, StatusReader
from dsql_outbox.outbox.arguments import given_hooks, given_settings, wrong_type
from dsql_outbox.outbox.database.database import Database, require_database
from dsql_outbox.outbox.errors import MissingExtra, SettingsError
from dsql_outbox.outbox.settings import require_not_negative, require_positive, require_text
from dsql_outbox.publisher.message_map import MessageMap, require_map
from dsql_outbox.publisher.publisher import Publisher
from dsql_outbox.publisher.relay.relay import Relayed
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks.kept_sink import SinkFactory, sink_factory

MARGIN: Final = 3.0
"""Seconds: the default of `relay_handler` for what an invocation keeps free at its end."""

logger: Final = logging.getLogger("dsql_outbox")

Ending = Literal["empty", "time", "no shard", "waiting"]


class Context(Protocol):
    """The part of Lambda's context that `relay_handler` uses."""

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda ends this invocation."""
        ...


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of one invocation.

    `ended` is ``empty`` if no message waits, ``time`` if the time was up, ``no shard`` if
    other publishers own all shards, and ``waiting`` if messages wait that could not be
    sent. `shards` is the highest number of shards that it owned. `delivered`, `skipped`, `failed`
    and `dead` are as in `Relayed`. `left` messages wait, also in the shards of others;
    they are counted up to 1,000, and `more` says that there are more.
    """

    ended: Ending
    shards: int
    delivered: int
    skipped: int
    failed: int
    dead: int
    left: int
    more: bool


Handler = Callable[[object, Context], dict[str, Any]]
"""A function as Lambda calls it; the result is an `Invocation` as a dict."""


def relay_handler(  # noqa: PLR0913 - one argument per setting
    database: Database,
    sink: str | SinkFactory,
    settings: PublisherSettings | None = None,
    *,
    margin: float = MARGIN,
    max_wait: float = 1.0,
    map: MessageMap | None = None,  # noqa: A002 - as `Publisher` calls it
    hooks: Iterable[Hook] = (),
) -> Handler:
    """Make the handler of a function that relays until the outbox is empty or its time is up.

    `sink` is a URL or a function that opens a sink, as for `Publisher`. Each invocation
    runs a publisher with `settings`, `map` and `hooks`. It stops `margin` seconds before
    Lambda ends the invocation. Half of them are for the calls of the sink that run
    then, the rest for settling and for giving the leases back. `max_wait` is how many
    seconds an invocation waits while nothing can be sent. Any event is accepted.

    Nothing is left when the handler returns: no task, no thread, no connection, no lease. An
    invocation that gets no shard, since other publishers own all, returns immediately.

    The handler raises `SettingsError` if the invocation has no more than `margin` left, and the
    errors of `Publisher.run`. In all cases the messages stay in the outbox.

    Raises `SettingsError` and `MissingExtra` as `open_sink` does, `SettingsError` for a
    limit that is out of range, and `TypeError` for an argument of a wrong type.
    """
    require_database("relay_handler", database)
    if map is not None:
        require_map("relay_handler", map)
    require_positive("relay_handler", {"margin": margin})
    require_not_negative("relay_handler", {"max_wait": max_wait})
    chosen = given_settings("relay_handler", settings, PublisherSettings)
    relay = _Relay(
        database,
        _factory(sink),
        replace(chosen, drain=min(chosen.drain, margin / 2)),
        max_wait=max_wait,
        map=map,
        hooks=given_hooks("relay_handler", hooks),
    )

    def handler(_event: object, context: Context) -> dict[str, Any]:
        ends = monotonic() + _seconds_left(context, margin)
        return msgspec.to_builtins(asyncio.run(relay.run(ends)))  # type: ignore[no-any-return]

    return handler


class Doorbell:
    """Rings the relay's function: invokes it asynchronously after a write has committed.

    Give it to the writer as a hook, and ring at the end of each invocation:

        bell = Doorbell("shop-relay")
        writer = Writer(database, hooks=[bell])
        ..
        bell.ring()

    `function` is the name or ARN of the function. `timeout` is how many seconds a ring
    takes at most. It is tried once: a ring that is lost delays messages until the next
    ring or the next run of the schedule.

    Raises `MissingExtra` without the extra [lambda], and `SettingsError` for a name or a
    timeout that is not valid, or if no region is known.
    """

    def __init__(self, function: str, *, timeout: float = 1.0) -> None:
        require_text("Doorbell", {"function": function})
        require_positive("Doorbell", {"timeout": timeout})
        self._function = function
        self._client, self._errors = _client(timeout)
        self._is_due = False

    def __call__(self, fact: Fact, /) -> None:
        """Record that a write has committed."""
        if isinstance(fact, WriteEnded) and fact.status == "committed":
            self._is_due = True

    def ring(self) -> bool:
        """Invoke the function if a write has committed since the last ring.

        Returns whether it was invoked. It raises nothing, since the events are stored:
        a failure is a warning in the log.
        """
        if not self._is_due:
            return False
        try:
            self._client.invoke(FunctionName=self._function, InvocationType="Event")
        except self._errors as error:
            logger.warning("Cannot ring the relay %s: %s", self._function, type(error).__name__)
            return False
        self._is_due = False
        return True


class _Relay:
    """Relays once per invocation, on connections that it opens and closes."""

    def __init__(  # noqa: PLR0913 - what its publishers take
        self,
        database: Database,
        sink: SinkFactory,
        settings: PublisherSettings,
        *,
        max_wait: float,
        map: MessageMap | None,  # noqa: A002 - as `Publisher` calls it
        hooks: Sequence[Hook],
    ) -> None:
        self._database = database
        self._sink = sink
        self._settings = settings
        self._max_wait = max_wait
        self._map = map
        self._hooks = hooks

    async def run(self, ends: float) -> Invocation:
        """Relay until `ends`, by the monotonic clock, or until nothing more can be sent.

        Messages that wait are counted after the leases are given back. A doorbell that
        came before that may have found no shard, so its message is in this count.
        """
        seen, runs = _Seen(), list[Relayed]()
        async with StatusReader(self._database) as status:
            while True:
                runs.append(await self._relay(seen, ends))
                left = await status.read_waiting()
                # A message that was sent and whose row stays would be sent again by each run.
                settled = runs[-1].deleted + runs[-1].dead
                if not (left.count and settled) or monotonic() >= ends:
                    break
        return _invocation(runs, left, seen, has_time=monotonic() < ends)

    async def _relay(self, seen: "_Seen", ends: float) -> Relayed:
        hooks = [*self._hooks, seen]
        publisher = Publisher(
            self._database, self._sink, self._settings, map=self._map, hooks=hooks
        )
        return await publisher.run(
            until_empty="own", max_wait=self._max_wait, max_seconds=max(0.0, ends - monotonic())
        )


class _Seen:
    """A hook that remembers the highest number of shards that were owned, and the broker's state.

    A publisher that does not reach its broker takes no shard.
    """

    def __init__(self) -> None:
        self.shards = 0
        self.reaches_broker = True

    def __call__(self, fact: Fact, /) -> None:
        if isinstance(fact, ShardsChanged):
            self.shards = max(self.shards, len(fact.owned))
        elif isinstance(fact, RelayProgress):
            self.reaches_broker = fact.sink_available

    def skips_successes(self) -> bool:
        """Messages are of no interest, so the relay makes no facts of them."""
        return True


def _invocation(
    runs: Sequence[Relayed], left: Bounded, seen: _Seen, *, has_time: bool
) -> Invocation:
    return Invocation(
        ended=_ending(left, seen, has_time=has_time),
        shards=seen.shards,
        delivered=sum(run.delivered for run in runs),
        skipped=sum(run.skipped for run in runs),
        failed=sum(run.failed for run in runs),
        dead=sum(run.dead for run in runs),
        left=left.count,
        more=left.more,
    )


def _ending(left: Bounded, seen: _Seen, *, has_time: bool) -> Ending:
    if not left.count:
        return "empty"
    if not seen.shards and seen.reaches_broker:
        return "no shard"
    return "waiting" if has_time else "time"


def _seconds_left(context: Context, margin: float) -> float:
    """The seconds of this invocation that may be used."""
    left = context.get_remaining_time_in_millis() / 1000
    if left <= margin:
        raise SettingsError(
            f"this invocation has {left:g} s left and keeps margin={margin:g} s free: "
            f"give the function a timeout well above {margin:g} s"
        )
    return left - margin


def _factory(sink: Any) -> SinkFactory:
    """Each invocation has an event loop of its own, so an open sink does not do."""
    if (found := sink_factory("relay_handler", sink)) is None:
        raise wrong_type(
            "relay_handler takes the URL of a sink, or a function that opens one",
            sink,
            'relay_handler(database, "nats://..")',
        )
    return found


def _client(timeout: float) -> tuple[Any, tuple[type[Exception], ...]]:
    """A client for Lambda, and the errors that it raises."""
    try:
        import boto3  # type: ignore[import-untyped]  # noqa: PLC0415 - it is an extra
        from botocore import (  # type: ignore[import-untyped]  # noqa: PLC0415
            config,
            exceptions,
        )
    except ModuleNotFoundError as error:
        raise MissingExtra("lambda", "Doorbell") from error
    sdk: Any = boto3
    limits = config.Config(
        connect_timeout=timeout / 2,
        read_timeout=timeout / 2,
        retries={"total_max_attempts": 1},
        user_agent_extra="dsql-outbox",
    )
    try:
        client = sdk.session.Session().client("lambda", config=limits)
    except exceptions.NoRegionError as error:
        raise SettingsError("Doorbell: the region is not known; set AWS_REGION") from error
    return client, (exceptions.BotoCoreError, exceptions.ClientError)
