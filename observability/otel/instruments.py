"""The instruments of the metrics hook.

Each counter of ours starts with a zero per attribute value, so a dashboard can distinguish
"never happened" from "not measured".
"""

from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from dsql_outbox.observability import metric_names as names
from dsql_outbox.observability.facts import (
    BrokerProbed,
    ConnectionPool,
    DatabaseServer,
    LifeJobs,
    PoolCounts,
    RelayProgress,
    StuckCounts,
)


class WriterInstruments:
    """The instruments of a writer."""

    def __init__(self, meter: Meter) -> None:
        self.calls = _counter(meter, names.WRITES)
        self.failed = _counter(meter, names.FAILED_ATTEMPTS)
        self.conflicts = _counter(meter, names.CONFLICTS)
        self._entity_conflicts = _counter(meter, names.ENTITY_CONFLICTS)
        self._types: set[str] = set()
        self.exhausted = _counter(meter, names.EXHAUSTED)
        self.waited = _counter(meter, names.WAITED)
        self.duration = _histogram(meter, names.WRITE_DURATION, names.WRITE_BUCKETS)
        self.operation = _histogram(meter, names.DB_DURATION, names.DB_DURATION.buckets)
        self.pools = Pools(meter)

    def count_types(self, entities: Sequence[str]) -> None:
        """Count a conflict for each type of these entities, given as ``TYPE/ID``."""
        for found in {key.partition("/")[0] for key in entities}:
            if len(self._types) < names.MOST_TYPES:
                self._types.add(found)
            known = found if found in self._types else "other"
            self._entity_conflicts.add(1, {names.ENTITY_CONFLICTS.attribute: known})


class Pools:
    """The connections of the writers of this process, counted when the metrics are read."""

    def __init__(self, meter: Meter) -> None:
        self._lock = Lock()
        self._names: WeakKeyDictionary[ConnectionPool, str] = WeakKeyDictionary()
        for metric, observe in (
            (names.POOL_COUNT, self._count),
            (names.POOL_MAX, self._limit),
            (names.POOL_PENDING, self._pending),
        ):
            meter.create_observable_up_down_counter(
                metric.name, [observe], metric.unit, metric.description
            )

    def add(self, pool: ConnectionPool, server: DatabaseServer) -> None:
        """Count the connections of this pool from now on."""
        if pool not in self._names:
            name = f"{server.address or ''}:{server.port or ''}/{server.namespace}"
            with self._lock:
                self._names[pool] = name

    def _count(self, _options: CallbackOptions) -> Iterator[Observation]:
        for name, counts in self._counts().items():
            for state, count in (("idle", counts.idle), ("used", counts.used)):
                yield Observation(count, {names.POOL_NAME: name, names.POOL_STATE: state})

    def _limit(self, _options: CallbackOptions) -> Iterator[Observation]:
        for name, counts in self._counts().items():
            yield Observation(counts.limit, {names.POOL_NAME: name})

    def _pending(self, _options: CallbackOptions) -> Iterator[Observation]:
        for name, counts in self._counts().items():
            yield Observation(counts.waiting, {names.POOL_NAME: name})

    def _counts(self) -> Mapping[str, PoolCounts]:
        """The sums of the pools that have the same name."""
        with self._lock:
            pools = list(self._names.items())
        found: dict[str, PoolCounts] = {}
        for pool, name in pools:
            so_far = found.get(name, PoolCounts(0, 0, 0, 0))
            found[name] = PoolCounts(*map(sum, zip(so_far, pool.counts(), strict=True)))
        return found


class TargetMeter:
    """A meter whose instruments add the attribute of a target to all that they measure."""

    def __init__(self, meter: Meter, target: str) -> None:
        self._meter = meter
        self._attributes = {names.TARGET: target}

    def __getattr__(self, name: str) -> Any:
        create = getattr(self._meter, name)

        def created(*args: Any, **named: Any) -> _Instrument:
            return _Instrument(create(*args, **named), self._attributes)

        return created


class _Instrument:
    def __init__(self, instrument: Any, attributes: Mapping[str, str]) -> None:
        self._instrument = instrument
        self._attributes = attributes

    def __getattr__(self, name: str) -> Any:
        measure = getattr(self._instrument, name)

        def measured(value: float, more: Mapping[str, str] | None = None) -> None:
            measure(value, {**self._attributes, **(more or {})})

        return measured


class LifeInstruments:
    """The instruments of the jobs that change stored events, which no target has to itself."""

    def __init__(self, meter: Meter) -> None:
        self._age = gauge(meter, names.FORGET_AGE)
        self._forgotten = gauge(meter, names.FORGOTTEN_EVENTS)
        self._erased = gauge(meter, names.ERASED_EVENTS)

    def take(self, fact: LifeJobs) -> None:
        """Record what the jobs have done. What there never was has no series."""
        self._forgotten.set(fact.forgotten)
        self._erased.set(fact.erased)
        if fact.forgotten_s is not None:
            self._age.set(fact.forgotten_s)


class RelayInstruments:
    """The instruments of a publisher."""

    def __init__(self, meter: Meter | TargetMeter) -> None:
        self.messages = _counter(meter, names.MESSAGES)
        self.retries = _counter(meter, names.RETRIES)
        self.duration = _histogram(meter, names.CALL_DURATION, names.WRITE_BUCKETS)
        self.wait_duration = _histogram(meter, names.WAIT_DURATION, names.WAIT_BUCKETS)
        sent = names.MESSAGING_SENT
        self.sent: Any = meter.create_counter(sent.name, sent.unit, sent.description)
        self.operation = _histogram(
            meter, names.MESSAGING_DURATION, names.MESSAGING_DURATION.buckets
        )
        self.changes = _counter(meter, names.SHARDS_CHANGES)
        self.owned = gauge(meter, names.SHARDS_OWNED)
        # No zeros, because a publisher that does not count statements must not report 0.
        self._statements = _counter(meter, names.STATEMENTS, zeros=False)
        self._read = _counter(meter, names.ROWS_READ)
        self._delivered = _counter(meter, names.ROWS_DELIVERED)
        self._skipped = _counter(meter, names.ROWS_SKIPPED)
        self._deleted = _counter(meter, names.ROWS_DELETED)
        self._dead = _counter(meter, names.DEAD_LETTERS)
        self._held = gauge(meter, names.SUBJECTS_HELD)
        self._paused = gauge(meter, names.TOPICS_PAUSED)
        self._dead_now = gauge(meter, names.DEAD_LETTERS_NOW)
        self._failures_now = gauge(meter, names.FAILURES_NOW)
        self._available = gauge(meter, names.SINK_AVAILABLE)
        self._relay_reaches = self._probe_reaches = True

    def take_progress(self, fact: RelayProgress) -> None:
        """Add the relay's work since its last report, and record its state."""
        self._read.add(fact.read)
        self._delivered.add(fact.delivered)
        self._skipped.add(fact.skipped)
        self._deleted.add(fact.deleted)
        self._dead.add(fact.dead)
        self._held.set(fact.held)
        self._paused.set(len(fact.paused) + fact.paused_more)
        self._relay_reaches = fact.sink_available
        self._set_available()
        if fact.statements is not None:
            self._statements.add(fact.statements)

    def take_probe(self, fact: BrokerProbed) -> None:
        """Record the result of the last probe of the broker."""
        self._probe_reaches = fact.reached
        self._set_available()

    def take_stuck(self, fact: StuckCounts) -> None:
        """Record how many messages cannot be delivered now."""
        self._dead_now.set(fact.dead_letters)
        self._failures_now.set(fact.failures)

    def _set_available(self) -> None:
        # As `/readyz`: an idle relay does not ask the broker, and a probe sends no message.
        self._available.set(int(self._relay_reaches and self._probe_reaches))


def _counter(meter: Meter | TargetMeter, metric: names.Metric, *, zeros: bool = True) -> Any:
    counter = meter.create_counter(metric.name, metric.unit, metric.description)
    if zeros and not metric.attribute:
        counter.add(0)
    for value in metric.values:
        counter.add(0, {metric.attribute: value})
    return counter


def _histogram(
    meter: Meter | TargetMeter, metric: names.Metric | names.Standard, buckets: tuple[float, ...]
) -> Any:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=buckets
    )


def gauge(meter: Meter | TargetMeter, metric: names.Metric) -> Any:
    """Create a gauge; the API has no public name for its type, so it is Any."""
    return meter.create_gauge(metric.name, metric.unit, metric.description)
