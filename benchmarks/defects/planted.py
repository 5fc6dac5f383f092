"""Defects to plant in the source, each as a text of a file and what stands there instead."""

from typing import Final, NamedTuple


class NoSuchText(Exception):
    """The text that a defect replaces does not stand in its file once: write the defect anew."""


class Defect(NamedTuple):
    """A defect: in `file`, `before` becomes `after`."""

    name: str
    file: str
    before: str
    after: str

    def plant(self, source: str) -> str:
        """The source with the defect. `before` must stand there once."""
        if (found := source.count(self.before)) != 1:
            raise NoSuchText(f"defect {self.name}: {self.file} has its text {found} times")
        return source.replace(self.before, self.after)


_RELAY: Final = "publisher/relay"
_OPERATIONS: Final = "src/dsql_outbox/operations"
_INBOX: Final = "src/dsql_outbox/inbox"
_BROKERS: Final = "src/dsql_outbox/brokers"
_SQL: Final = "schema/statements"

DEFECTS: Final = (
    # --- the relay
    Defect(
        "a probe that is gone lets its topic wait",
        f"{_RELAY}/reader.py",
        "            state.topics.give_up_probe(row)\n            state.resume_topics()\n"
        "        elif row not in state.rows.known:",
        "            state.topics.give_up_probe(row)\n        elif row not in state.rows.known:",
    ),
    Defect(
        "rows of a page whose lease lapsed are not noted",
        f"{_RELAY}/sender.py",
        "is_wanted=not has_lease",
        "is_wanted=has_lease",
    ),
    Defect(
        "rows are sent while the database takes no deletes",
        f"{_RELAY}/sender.py",
        "while unsettled < MAX_IN_FLIGHT and (taken := self._take(most, free)):",
        "while taken := self._take(most, free):",
    ),
    Defect(
        "a row leaves with a malformed one, and is sent",
        f"{_RELAY}/sink_call.py",
        "sent = [at for at in forms if at not in page.subjects]",
        "sent = [*forms]",
    ),
    Defect(
        "a subject goes on behind its first row in a page",
        f"{_RELAY}/memory/queues.py",
        "if pages.get(key) is page and page.ends_run(at):",
        "if pages.get(key) is page:",
    ),
    Defect(
        "a sweep that begins again takes an old answer",
        f"{_RELAY}/memory/scans.py",
        "        self.beginning += 1\n",
        "",
    ),
    Defect(
        "a failure without a lease is recorded",
        f"{_RELAY}/settler.py",
        "ours = [each for each in batch.values() if self._outcomes.has_lease(each[2].shard)]",
        "ours = [*batch.values()]",
    ),
    Defect(
        "rows that were deleted stay to be deleted",
        f"{_RELAY}/settler.py",
        '            move(rows.pop(row), "settled")',
        '            move(rows[row], "settled")',
    ),
    Defect(
        "a lost row is recorded as failed",
        f"{_RELAY}/outcomes.py",
        "if subject.shard.is_lost and not self.has_lease(subject.shard):",
        "if False:",
    ),
    Defect(
        "what no sink attempted goes on at once",
        f"{_RELAY}/outcomes.py",
        "state.queues.requeue_later(subject, state.clock() + REST)",
        "state.queues.requeue_later(subject, state.clock())",
    ),
    Defect(
        "a resumed topic is not read again",
        f"{_RELAY}/outcomes.py",
        "            self._state.resume_topics()",
        "            pass",
    ),
    Defect(
        "an old snapshot brings a settled row again",
        f"{_RELAY}/memory/queues.py",
        'if to != "outbox" and subject.shard.is_lost:',
        "if False:",
    ),
    Defect(
        "a topic takes all of the room",
        f"{_RELAY}/memory/queues.py",
        "room = min(share, max(free - most + left, of * OWN)) - use.busy",
        "room = max(free - most + left, of * OWN) - use.busy",
    ),
    # --- leases
    Defect(
        "a lease of another epoch may send",
        "publisher/leases/ownership.py",
        "return held is not None and held.epoch == epoch and self._is_open(held, now)",
        "return held is not None and self._is_open(held, now)",
    ),
    Defect(
        "a lease has no margin",
        "publisher/leases/ownership.py",
        "sent_at + self._settings.lease - self._settings.margin",
        "sent_at + self._settings.lease",
    ),
    Defect(
        "a shard that drains is sent",
        "publisher/leases/ownership.py",
        "return not held.draining and not self.is_stopping and now < held.deadline",
        "return not self.is_stopping and now < held.deadline",
    ),
    # --- the writer
    Defect(
        "one attempt in doubt is forgotten by the next",
        "writer/attempt/pending.py",
        "self.in_doubt = self.in_doubt or failure.kind is FailureKind.IN_DOUBT",
        "self.in_doubt = failure.kind is FailureKind.IN_DOUBT",
    ),
    Defect(
        "an expired call leaves though it is sent",
        "writer/attempt/pending.py",
        "if self.is_open and not self.is_sent:",
        "if self.is_open:",
    ),
    Defect(
        "a stale version is certain while in doubt",
        "writer/attempt/pending.py",
        "if self.in_doubt and actual < expected:",
        "if False:",
    ),
    Defect(
        "a stale version behind a touch is reported",
        "writer/attempt/event_write.py",
        "if any(earlier.touches_subject_of(pending) for earlier in batch[:place]):",
        "if False:",
    ),
    Defect(
        "a sifted event overtakes one of its entity",
        "writer/attempt/event_write.py",
        "            taken |= pending.entities\n",
        "",
    ),
    Defect(
        "a batch is not split before its last try",
        "writer/attempt/event_write.py",
        "if any(pending.journal.is_last_try for pending in batch):",
        "if False:",
    ),
    Defect(
        "a duplicate is returned for other content",
        "writer/attempt/pending.py",
        'if same and self._on_duplicate == "return":',
        'if self._on_duplicate == "return":',
    ),
    Defect(
        "a settled event frees one entity",
        "writer/coalesce/lanes.py",
        "            self._advance(ticket.keys)\n\n    def withdraw",
        "            self._advance(ticket.keys[:1])\n\n    def withdraw",
    ),
    # --- units of work and sessions
    Defect(
        "any answer to COMMIT is a commit",
        "outbox/unit_of_work/commit.py",
        '    if answer == "COMMIT":\n        return\n',
        "    return\n",
    ),
    Defect(
        "a late write is sent",
        "outbox/unit_of_work/gate.py",
        "        self._require_time(what, now)\n        if connection",
        "        if connection",
    ),
    Defect(
        "a swallowed refusal is committed",
        "outbox/unit_of_work/function_run.py",
        "            return self._judge_refused()",
        "            return None",
    ),
    Defect(
        "an append that is not awaited is committed",
        "outbox/unit_of_work/function_run.py",
        "        if self._unfinished:\n            self.misuse = self._not_awaited()\n",
        "",
    ),
    Defect(
        "a run is found after its end",
        "outbox/unit_of_work/function_run.py",
        "        for key in entries:\n            del _runs[key]",
        "        pass",
    ),
    Defect(
        "a lost connection goes on with the function's error",
        "outbox/unit_of_work/function_run.py",
        "            return self._is_lost\n",
        "            return False\n",
    ),
    Defect(
        "a call that left keeps its connection",
        "outbox/unit_of_work/connections/shelf.py",
        "                self._shelve(connection)\n\n    def serve",
        "                pass\n\n    def serve",
    ),
    # --- the inbox
    Defect(
        "a run in doubt is forgotten",
        f"{_INBOX}/once.py",
        "self._call.lost[run.id] = {entry.key: entry.handled for entry in run.entries}",
        "del run",
    ),
    Defect(
        "a message overtakes a failed one",
        f"{_INBOX}/once.py",
        "if first is not None and entry.place > first.place:",
        "if False:",
    ),
    Defect(
        "a message that comes twice ran twice",
        f"{_INBOX}/once.py",
        "if key in told and isinstance(outcome, Handled):",
        "if False:",
    ),
    Defect(
        "all functions run after one has failed the transaction",
        f"{_INBOX}/once.py",
        "if len(self.entries) > 1 and not self.can_commit:",
        "if False:",
    ),
    # --- jobs
    Defect(
        "a job that rests keeps no lease",
        f"{_OPERATIONS}/run.py",
        "            await fence.renew()\n        return not self.is_stopping",
        "        return not self.is_stopping",
    ),
    Defect(
        "a step of an erasure proves no lease",
        f"{_OPERATIONS}/life/erase.py",
        "                await job.step_in(transaction, erased=batch.events)\n",
        "",
    ),
    Defect(
        "an erasure ends though it was stopped",
        f"{_OPERATIONS}/life/erase.py",
        "            if not self.is_stopping:\n                await self._finish(job)",
        "            if True:\n                await self._finish(job)",
    ),
    Defect(
        "an event is forgotten that a row names by now",
        f"{_OPERATIONS}/life/forget.py",
        "            raise _NamedNow(frozenset(found for (found,) in named))",
        "            pass",
    ),
    Defect(
        "a step of a forget job proves no lease",
        f"{_OPERATIONS}/life/forget.py",
        "        await job.step_in(transaction, forgotten=len(events))\n",
        "",
    ),
    Defect(
        "a job forgets while a target fills",
        f"{_OPERATIONS}/life/forget.py",
        "        await refuse_filling(transaction)\n        # After",
        "        # After",
    ),
    # --- sinks
    Defect(
        "any answer of a NATS responder is an acknowledgement",
        f"{_BROKERS}/nats/acknowledgement.py",
        "return _DELIVERED if read.stream else Unavailable(f",
        "return _DELIVERED if True else Unavailable(f",
    ),
    Defect(
        "a message in process at NATS is refused",
        f"{_BROKERS}/nats/acknowledgement.py",
        "    if error.err_code == _IN_PROCESS:\n        return NotAttempted()\n",
        "",
    ),
    Defect(
        "Kafka's refusal of a request is one of each message",
        f"{_BROKERS}/kafka/reports.py",
        "error.name() in _SHARED and index in self.unanswered",
        "False",
    ),
    Defect(
        "a Redis transaction that was not begun is delivered",
        f"{_BROKERS}/redis/sink.py",
        "    if isinstance(begun, ResponseError):\n        raise begun\n",
        "",
    ),
    Defect(
        "what Redis closed the connection for is sent again",
        f"{_BROKERS}/redis/sink.py",
        "            self.left = list(runs[1:])\n            self.answer",
        "            self.left = list(runs)\n            self.answer",
    ),
    # --- statements
    Defect(
        "a lease is renewed under any epoch",
        f"{_SQL}/lease_renew.sql",
        "l.epoch = k.epoch AND l.owner = %(owner)s",
        "l.owner = %(owner)s",
    ),
    Defect(
        "a lease is taken under any epoch",
        f"{_SQL}/lease_take.sql",
        "WHERE l.shard = k.shard AND l.epoch = k.epoch\n",
        "WHERE l.shard = k.shard\n",
    ),
    Defect(
        "attempts of a message go down",
        f"{_SQL}/failure_record.sql",
        "attempts = GREATEST(f.attempts, EXCLUDED.attempts)",
        "attempts = EXCLUDED.attempts",
    ),
    Defect(
        "a job begins beside another one",
        f"{_SQL}/job_begin.sql",
        "j.owner IS NULL OR j.expires_at < clock_timestamp()",
        "true",
    ),
    Defect(
        "an erasure overwrites what changed meanwhile",
        f"{_SQL}/erase_events_change.sql",
        " AND b.fingerprint = decode(k.before, 'hex')",
        "",
    ),
    Defect(
        "a burial keeps the record of the failure",
        f"{_SQL}/outbox_bury.sql",
        "AND f.event_id = k.event_id\n",
        "AND f.event_id = k.event_id AND false\n",
    ),
    Defect(
        "a dead letter's event may be forgotten",
        f"{_SQL}/forget_named.sql",
        "EXISTS (SELECT FROM {schema}.dead_letters d WHERE d.event_id = b.id)\n  OR ",
        "",
    ),
    Defect(
        "a topic is resumed for all targets",
        f"{_SQL}/topic_resume.sql",
        "target = %(target)s AND ",
        "(%(target)s::text IS NOT NULL) AND ",
    ),
    Defect(
        "a delete takes what has the position",
        f"{_SQL}/outbox_delete.sql",
        " AND o.event_id = k.event_id",
        "",
    ),
    # --- slips of one line
    Defect(
        "one entity too many is sent to all targets",
        "writer/statement/chunks.py",
        "return (MAX_TRANSACTION_ROWS - 1 - targets) // 2",
        "return (MAX_TRANSACTION_ROWS + 1 - targets) // 2",
    ),
    Defect(
        "a stream ends at a page that was cut by its bytes",
        "writer/program/stream.py",
        "self.is_at_end = seen < PAGE_ROWS and len(rows) == seen",
        "self.is_at_end = seen < PAGE_ROWS",
    ),
    Defect(
        "a call that leaves its queue keeps its place",
        "writer/coalesce/coalescer.py",
        "        if self._lanes.withdraw(call):\n            self._room.release()",
        "        self._lanes.withdraw(call)",
    ),
    Defect(
        "the breaker opens one failure late",
        f"{_RELAY}/memory/breaker.py",
        "is_open = self._failures >= FAILURES",
        "is_open = self._failures > FAILURES",
    ),
    Defect(
        "the leases keep their connection after the end",
        "publisher/leases/keeper.py",
        "            task.cancel()\n            self._table.drop()\n",
        "            task.cancel()\n",
    ),
    Defect(
        "a question about receipts that failed is not asked again",
        f"{_RELAY}/receipt_watch.py",
        "                self._due |= topics\n",
        "",
    ),
    Defect(
        "a topic of Kafka is as safe as its safest partition",
        f"{_BROKERS}/kafka/keeping.py",
        "name: min(len(part.replicas)",
        "name: max(len(part.replicas)",
    ),
    Defect(
        "SQS and SNS get no own headers",
        f"{_BROKERS}/aws/message_entry.py",
        "        **message.wire_headers,\n",
        "",
    ),
    Defect(
        "a refused NATS message counts as on its way",
        f"{_BROKERS}/nats/call.py",
        "                del self._waiting[index]\n                self._in_flight -= run.on_way\n",
        "                del self._waiting[index]\n",
    ),
    Defect(
        "a message of RabbitMQ has no trace",
        f"{_INBOX}/broker_messages.py",
        "    own |= {name: wire[name] for name in TRACE_HEADERS if name in wire}\n"
        "    if message.content_type is not None:",
        "    if message.content_type is not None:",
    ),
    Defect(
        "a pruning forgets for all consumers",
        f"{_SQL}/inbox_forget.sql",
        "i.consumer = %(consumer)s::text",
        "%(consumer)s::text IS NOT NULL",
    ),
    Defect(
        "a run forgets the positions that it gave",
        f"{_OPERATIONS}/requeue.py",
        "        self._positions.keep(placed)\n",
        "",
    ),
    Defect(
        "a retry counts its limit twice",
        f"{_OPERATIONS}/retry.py",
        "        self._left -= 1\n",
        "",
    ),
    Defect(
        "a worker that lost a fill takes it from the next one",
        f"{_SQL}/fill_leave.sql",
        "AND epoch = %(epoch)s",
        "AND %(epoch)s::bigint IS NOT NULL",
    ),
    Defect(
        "a load goes on behind what was not stored",
        "src/dsql_outbox/cli/write/loader.py",
        "self._unsettled = [*open_lines, *self._unsettled[len(lines) :]]",
        "self._unsettled = self._unsettled[len(lines) :]",
    ),
    Defect(
        "an input that cannot be read is told with the line before",
        "src/dsql_outbox/cli/write/inputs.py",
        "raise Unreadable(name, number + 1, error) from error",
        "raise Unreadable(name, number, error) from error",
    ),
    Defect(
        "an exporter's temporality is its aggregation",
        "src/dsql_outbox/cli/telemetry/sdk_metrics.py",
        "            exporter._preferred_temporality,  # noqa: SLF001 - the reader asks for it by this "
        "name\n            exporter._preferred_aggregation,  # noqa: SLF001 - as above\n",
        "            exporter._preferred_aggregation,\n            exporter._preferred_temporality,\n",
    ),
    Defect(
        "a database whose clock is ahead makes a negative wait",
        "observability/otel/metrics.py",
        "waited = max(0, fact.picked_up_ns - fact.committed_ns)",
        "waited = fact.picked_up_ns - fact.committed_ns",
    ),
    Defect(
        "one missing shard is no gap",
        "schema/comparison.py",
        "if above - below > 1:",
        "if above - below > 2:",
    ),
    Defect(
        "a publisher that is announced in the future never dies",
        "schema/liveness.py",
        "is_silent = not is_alive(max(peer.age, now - seen.since), peer.lease)",
        "is_silent = not is_alive(peer.age, peer.lease)",
    ),
    Defect(
        "a transaction ends with the first of its deadlines",
        "writer/coalesce/coalescer.py",
        "gate.deadline = max(known)",
        "gate.deadline = min(known)",
    ),
    Defect(
        "a process looks at the backlog with its first write",
        "writer/backlog_alarm.py",
        "return now - self._began >= self._interval and self._turns.take(now, self._interval)",
        "return self._turns.take(now, self._interval)",
    ),
    Defect(
        "a round that is cancelled keeps its connection",
        "writer/doorbell.py",
        "            if connection is not None:\n"
        "                self._connections.take_back(connection)\n",
        "            del connection\n",
    ),
    Defect(
        "failed rows of any size are read together",
        f"{_RELAY}/memory/retry_times.py",
        "                size -= first.hold.size\n",
        "",
    ),
    Defect(
        "a doorbell that was heard again keeps its long wait",
        "publisher/doorbell.py",
        "        self._wait = _FIRST_WAIT\n        if self._is_told:",
        "        if self._is_told:",
    ),
    Defect(
        "a request to AWS may exceed its bytes by one message",
        f"{_BROKERS}/aws/batch_client.py",
        "total + entry.size > max_bytes",
        "total > max_bytes",
    ),
    Defect(
        "a topic that RabbitMQ took stays in doubt",
        f"{_BROKERS}/rabbitmq/doubts.py",
        "        self._topics.discard(topic)\n",
        "",
    ),
    Defect(
        "a batch of NATS stays open when its run has ended",
        f"{_BROKERS}/nats/call.py",
        "        if run.batch:\n            self._close_batch(run)\n        run.left = range(0)",
        "        run.left = range(0)",
    ),
    Defect(
        "a pruning ends at a page without old messages",
        f"{_INBOX}/pruning.py",
        "self.has_more = len(rows) == PAGE",
        "self.has_more = len(old) > 0",
    ),
    Defect(
        "a late message of a batch moves its subject back",
        f"{_INBOX}/memory.py",
        "lasts[subject] = max(last, _place_of(message))",
        "lasts[subject] = _place_of(message)",
    ),
    Defect(
        "a pruning reads all consumers",
        f"{_SQL}/inbox_page.sql",
        "WHERE consumer = %(consumer)s::text AND",
        "WHERE %(consumer)s::text IS NOT NULL AND",
    ),
    Defect(
        "a pass goes on when its run is stopped",
        f"{_OPERATIONS}/life/keep.py",
        "        if self._run is not None:\n            self._run.stop()\n",
        "",
    ),
    Defect(
        "the headers of a replay weigh nothing",
        f"{_OPERATIONS}/requeue.py",
        "(1, each.size + len(_encode(each.headers)) if isinstance(each, Candidate) else 0)",
        "(1, each.size if isinstance(each, Candidate) else 0)",
    ),
    Defect(
        "two replays of a subject get one position",
        f"{_OPERATIONS}/replay_positions.py",
        "max(candidate.now_us, candidate.last_position + 1, previous + 1)",
        "max(candidate.now_us, candidate.last_position + 1)",
    ),
    Defect(
        "a second SIGTERM ends the work",
        "src/dsql_outbox/cli/signals.py",
        "                elif found == signal.SIGINT:",
        "                else:",
    ),
    Defect(
        "the protocol of all signals wins over that of one",
        "src/dsql_outbox/cli/telemetry/otel_environment.py",
        'return f"OTEL_EXPORTER_OTLP_{signal}_{what}", f"OTEL_EXPORTER_OTLP_{what}"',
        'return f"OTEL_EXPORTER_OTLP_{what}", f"OTEL_EXPORTER_OTLP_{signal}_{what}"',
    ),
    Defect(
        "one repeated line too many is logged",
        "observability/repeated_lines.py",
        "if recent.logged < self._first:",
        "if recent.logged <= self._first:",
    ),
    Defect(
        "a backlog that is given up is told at DEBUG",
        "observability/log_hook.py",
        "logging.WARNING if fact.switched_off else logging.DEBUG",
        "logging.DEBUG if fact.switched_off else logging.WARNING",
    ),
    Defect(
        "the schema public is dropped with its last table",
        "schema/migrator.py",
        'if len(ours) == len(shape) and schema != "public":',
        "if len(ours) == len(shape):",
    ),
    Defect(
        "a lease of another ends without the grace",
        "schema/liveness.py",
        "self._lengths[lease.owner] + self._grace",
        "self._lengths[lease.owner]",
    ),
    Defect(
        "the last try of a conflict is one too late",
        "writer/attempt/journal.py",
        "self.count(CONFLICT) >= times",
        "self.count(CONFLICT) > times",
    ),
    Defect(
        "an outage that has ended counts in the next one",
        "outbox/unit_of_work/budget.py",
        "        if self._began is not None:\n            self._began = None\n",
        "        if self._began is not None:\n",
    ),
    Defect(
        "a caller that cannot wait takes a turn",
        "outbox/database/rate_limit.py",
        "            turn = max(now, last)\n            if turn <= latest:\n"
        "                self._last = last\n",
        "            turn = max(now, last)\n            self._last = last\n",
    ),
    Defect(
        "a call waits for a pool until its own deadline",
        "outbox/sessions/lent_sessions.py",
        "seconds = min(seconds, max(0.0, deadline - monotonic()))",
        "seconds = max(0.0, deadline - monotonic())",
    ),
    Defect(
        "the second copy of an event weighs nothing",
        "outbox/event/event_parser.py",
        "stored = 2 * event + entities + count",
        "stored = event + entities + count",
    ),
    Defect(
        "to give up closes an open sink",
        "publisher/sinks/kept_sink.py",
        "if self._sink is None and self._attempt is not None:",
        "if self._attempt is not None:",
    ),
    Defect(
        "a lease that is taken alone has never ended",
        "publisher/leases/table.py",
        "parameters = self._parameters(owner, dict([one]), ended)",
        "parameters = self._parameters(owner, dict([one]))",
    ),
    Defect(
        "the partitions of a dropped producer of Kafka are kept",
        f"{_BROKERS}/kafka/runs.py",
        "            self._client.drop(producer)\n            self._places.clear()\n",
        "            self._client.drop(producer)\n",
    ),
    Defect(
        "a NATS client that reconnects is not closed",
        f"{_BROKERS}/nats/client.py",
        "if client.is_connected or client.is_connecting or client.is_reconnecting:",
        "if client.is_connected or client.is_connecting:",
    ),
    Defect(
        "a text of the most characters does not fit",
        f"{_INBOX}/received.py",
        "return 0 < len(text) <= limit and",
        "return 0 < len(text) < limit and",
    ),
    Defect(
        "a rate counts items in place of events",
        f"{_OPERATIONS}/pages.py",
        "run.pace.spend(step.changed, began",
        "run.pace.spend(step.settled, began",
    ),
    Defect(
        "a fill is taken from a worker that goes on",
        f"{_SQL}/fill_take.sql",
        " AND state = 'filling' AND expires_at <= clock_timestamp()",
        " AND state = 'filling'",
    ),
    Defect(
        "a subject that is blocked goes on with the next page",
        "schema/backlog.py",
        "    blocked: set[tuple[int, str, str]] = set()\n    while seen == rows:\n",
        "    while seen == rows:\n        blocked: set[tuple[int, str, str]] = set()\n",
    ),
    Defect(
        "the sums of a quiet block are logged after it",
        "src/dsql_outbox/cli/logs.py",
        "        log_facts.flush()  # also the sums\n",
        "",
    ),
    Defect(
        "the long count keeps its connection",
        "src/dsql_outbox/console/sampler.py",
        "_REST * (monotonic() - began)))\n        finally:\n"
        "            await self._reader.close()\n",
        "_REST * (monotonic() - began)))\n        finally:\n            pass\n",
    ),
    Defect(
        "a server that cannot listen on all addresses keeps one",
        "src/dsql_outbox/http_server/server.py",
        "    for listener in listeners:\n        listener.close()\n    raise SettingsError(",
        "    raise SettingsError(",
    ),
    Defect(
        "a hook that skips a message skips it for all",
        "observability/hooks.py",
        "return all(skips is not None and skips(carrier) for skips in self._skips)",
        "return any(skips is not None and skips(carrier) for skips in self._skips)",
    ),
    Defect(
        "a writer of Django keeps its first settings",
        "src/dsql_outbox/django/producer.py",
        "key = url, given.schema, given.writer",
        "key = url, given.schema",
    ),
    Defect(
        "the sink of a publisher that has ended is probed",
        "src/dsql_outbox/starlette/background_publisher.py",
        "            self._publisher = None\n            self._probe.watch(None)\n",
        "            self._publisher = None\n",
    ),
    Defect(
        "a receiver of OTLP keeps its port",
        "src/dsql_outbox/testing/otlp_receiver.py",
        "        self._server.server_close()\n",
        "",
    ),
)
"""Each defect that `make defects` plants."""
