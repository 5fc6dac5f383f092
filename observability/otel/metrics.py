"""The hook that turns facts into OpenTelemetry metrics, with only OpenTelemetry's API.

Without an SDK nothing is measured, and a fact costs one quick check. The
instruments of the writer and of the relay are created by their first fact, so a
process reports only metrics of the part that it runs.
"""

from functools import cache, cached_property, lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import Meter, MeterProvider

from dsql_outbox.observability import attributes
from dsql_outbox.observability import metric_names as names
from dsql_outbox.observability.facts import (
    AttemptEnded,
    BacklogAge,
    BrokerProbed,
    CallEnded,
    CallStarted,
    DatabaseServer,
    Fact,
    LifeJobs,
    RelayProgress,
    ShardsChanged,
    StuckCounts,
    TransactionEnded,
    WriteEnded,
    WriteExhausted,
    WritesStored,
)
from dsql_outbox.observability.recording import Recording

from .instruments import LifeInstruments, RelayInstruments, TargetMeter, WriterInstruments, gauge
from .spans import database_attributes

if TYPE_CHECKING:
    from collections.abc import Callable

_NS: Final = 1e-9
_API: Final = "opentelemetry.metrics"
"""The package of the providers that record nothing; those of an SDK are in other packages."""


def _is_measured() -> bool:
    return not type(metrics.get_meter_provider()).__module__.startswith(_API)


class MetricFacts:
    """The hook that turns facts into metrics.

    Without `meter_provider` it uses the global provider, even if that is set
    after the first fact. What it measures of a publisher has the attribute of its `target`,
    unless that is None, as for the default target.
    """

    def __init__(
        self, meter_provider: MeterProvider | None = None, *, target: str | None = None
    ) -> None:
        self._provider = meter_provider
        self._target = target
        self._is_live = Recording(_is_measured, is_live=meter_provider is not None)
        self._takers: dict[type[Fact], Callable[[Any], None]] = {
            AttemptEnded: self._take_attempt,
            WriteEnded: self._take_write_end,
            WriteExhausted: self._take_exhausted,
            WritesStored: self._take_stored,
            TransactionEnded: self._take_transaction_end,
            BacklogAge: self._take_backlog_age,
            StuckCounts: self._take_stuck,
            LifeJobs: self._take_life,
            BrokerProbed: self._take_probe,
            CallStarted: self._take_call,
            CallEnded: self._take_call_end,
            RelayProgress: self._take_progress,
            ShardsChanged: self._take_shards,
        }

    def __call__(self, fact: Fact, /) -> None:
        """Record a fact."""
        taker = self._takers.get(type(fact))
        if taker is not None and self._is_live():
            taker(fact)

    def skips_successes(self) -> bool:
        """Whether no provider records."""
        return not self._is_live()

    def takes_calls(self) -> bool:
        """A call is measured as a whole: a record per event or message would cost more than it."""
        return True

    @cached_property
    def _meter(self) -> Meter:
        return metrics.get_meter("dsql_outbox", version("dsql-outbox"), self._provider)

    @cached_property
    def _target_meter(self) -> Meter | TargetMeter:
        if self._target is None:
            return self._meter
        # A scope of its own: two targets of one process have instruments of the same names.
        known = version("dsql-outbox")
        scope = {names.TARGET: self._target}
        found = metrics.get_meter("dsql_outbox", known, self._provider, attributes=scope)
        return TargetMeter(found, self._target)

    @cached_property
    def _writer(self) -> WriterInstruments:
        return WriterInstruments(self._meter)

    @cached_property
    def _relay(self) -> RelayInstruments:
        return RelayInstruments(self._target_meter)

    @cached_property
    def _life(self) -> LifeInstruments:
        return LifeInstruments(self._meter)

    @cached_property
    def _backlog_age(self) -> Any:
        return gauge(self._target_meter, names.BACKLOG_AGE)

    def _take_attempt(self, fact: AttemptEnded) -> None:
        if fact.outcome in names.FAILED_ATTEMPTS.values:
            self._writer.failed.add(1, {names.FAILED_ATTEMPTS.attribute: fact.outcome})
        if fact.waited_s:
            self._writer.waited.add(fact.waited_s)
        if fact.outcome == "conflict":
            known = fact.oc_class in names.CONFLICTS.values
            kind = fact.oc_class if known else "other"
            self._writer.conflicts.add(1, {names.CONFLICTS.attribute: kind})
            self._writer.count_types(fact.entities)

    def _take_write_end(self, fact: WriteEnded) -> None:
        self._writer.calls.add(1, {names.WRITES.attribute: fact.status})
        self._record_call(fact.duration_s, has_conflicted=fact.conflicts > 0)

    def _take_exhausted(self, _fact: WriteExhausted) -> None:
        self._writer.exhausted.add(1)

    def _take_stored(self, fact: WritesStored) -> None:
        self._writer.calls.add(fact.events, {names.WRITES.attribute: "committed"})
        for call in fact.calls:
            self._record_call(call.duration_s, has_conflicted=call.has_conflicted)
            if call.waited_s:
                self._writer.waited.add(call.waited_s)

    def _record_call(self, seconds: float, *, has_conflicted: bool) -> None:
        conflicted = "yes" if has_conflicted else "no"
        self._writer.duration.record(seconds, {names.WRITE_CONFLICTED: conflicted})

    def _take_transaction_end(self, fact: TransactionEnded) -> None:
        seconds = max(0, fact.ended_ns - fact.started_ns) * _NS
        self._writer.operation.record(
            seconds, _database_attributes(fact.server, fact.error, fact.sqlstate)
        )
        self._writer.pools.add(fact.pool, fact.server)

    def _take_backlog_age(self, fact: BacklogAge) -> None:
        self._backlog_age.set(fact.seconds)

    def _take_stuck(self, fact: StuckCounts) -> None:
        self._relay.take_stuck(fact)

    def _take_life(self, fact: LifeJobs) -> None:
        self._life.take(fact)

    def _take_probe(self, fact: BrokerProbed) -> None:
        self._relay.take_probe(fact)

    def _take_call(self, fact: CallStarted) -> None:
        if fact.retries:
            self._relay.retries.add(fact.retries)
        if fact.committed_ns is not None:
            # These are two clocks, and the database's may be ahead of this machine's.
            waited = max(0, fact.picked_up_ns - fact.committed_ns)
            self._relay.wait_duration.record(waited * _NS)

    def _take_call_end(self, fact: CallEnded) -> None:
        result = {names.MESSAGES.attribute: fact.result}
        self._relay.messages.add(fact.messages, result)
        self._relay.duration.record(fact.duration_s, result)
        if fact.result != "not_attempted":  # nothing was sent, so it is no operation
            standard = _messaging_attributes(
                fact.call.system,
                fact.call.destination,
                fact.call.server_address,
                fact.call.server_port,
                None if fact.result == "delivered" else fact.result,
            )
            self._relay.sent.add(fact.messages, standard)
            self._relay.operation.record(fact.duration_s, standard)

    def _take_progress(self, fact: RelayProgress) -> None:
        self._relay.take_progress(fact)

    def _take_shards(self, fact: ShardsChanged) -> None:
        self._relay.owned.set(len(fact.owned))
        self._relay.changes.add(len(fact.gained), {names.SHARDS_CHANGE: "gained"})
        self._relay.changes.add(len(fact.lost), {names.SHARDS_CHANGE: "lost"})


metric_facts: Final = MetricFacts()
"""The hook for the global meter provider; on by default."""


@cache
def target_metrics(target: str | None) -> MetricFacts:
    """The hook of a target for the global meter provider; None: of the default target."""
    return metric_facts if target is None else MetricFacts(target=target)


@lru_cache(maxsize=256)  # few databases, and few kinds of errors
def _database_attributes(
    server: DatabaseServer, error: str | None, sqlstate: str | None
) -> dict[str, str | int]:
    """The attributes of the conventions. Do not change the result."""
    failure = {attributes.ERROR_TYPE: error, attributes.DB_STATUS_CODE: sqlstate}
    known = {name: value for name, value in failure.items() if value is not None}
    return {**database_attributes(server), **known}


@lru_cache(maxsize=256)  # few brokers, and few results
def _messaging_attributes(
    system: str, destination: str, address: str | None, port: int | None, error: str | None
) -> dict[str, str | int]:
    """The attributes of the conventions, without topics, which may be many. Do not change it."""
    found = {
        attributes.MESSAGING_SYSTEM: system,
        attributes.MESSAGING_OPERATION_NAME: "publish",
        attributes.MESSAGING_OPERATION_TYPE: "send",
        attributes.MESSAGING_DESTINATION: destination or None,
        attributes.SERVER_ADDRESS: address,
        attributes.SERVER_PORT: port,
        attributes.ERROR_TYPE: error,
    }
    return {name: value for name, value in found.items() if value is not None}
