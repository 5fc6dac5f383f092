"""The relay: it reads rows of the outbox, sends them, and settles the broker's answers.

Presence is the state. A row in the outbox waits; a row that the broker has is deleted by its whole
key. Beside that, only failures (``outbox_failures``) and dead letters are stored. Three activities
run side by side (`relay`). They share their memory (chapter `memory`), which `state` holds:

    outbox --> read --> rows per subject --> send --> broker
      ^                                       |
      +------------------ settle <------------+

**Read** (`reader`). One statement at a time asks for several ranges of each shard. The
*sweep* goes through all rows, again and again; the *tail* stays near the newest (`scans`).
Failed rows whose time has come are read by their keys (`retry_times`). Rows that cannot be sent
now are passed over in SQL: subjects with a failed row, subjects with enough rows in memory, and
topics that are paused (`topics`) or use their share of the memory (`shares`). They are read
*again* when they can be sent. That only saves work. Order depends on the rule of admission
(`queues`). From then on a row has a stage, and `rows` has all stages and the steps between them.
Most rows take these steps in a *page*, with the other rows of their read (`pages`).

**Send** (`sender`). Rows wait in a page, or per subject, first in, first out (`subjects`). A
subject has one run on its way: one message, or several if the sink keeps their order. Many calls of
the sink run at a time (`sink_call`), each with pages and with runs of subjects that are free. When
the last message of a run is `Delivered`, its subject goes on immediately. `outcomes` has each way
in which a row ends. When the broker as a whole fails, `breaker` decides when to try it again. Each
call has its `answers`, which check every one and know which messages have none and which runs have
ended. `traced_sink` reports them to the hooks, `sifter` sends again what has none after an error,
and finds the message at fault, and the call ends what is left. `receipt_watch` warns once of a
broker that may lose what it has acknowledged.

**Settle** (`settler`). The ends of rows leave changes for the tables (`changes`). Acknowledged rows
are deleted, failures are recorded, messages that were given up are buried, and the failures of rows
that are settled now are deleted: a batch of each kind in turn. A subject goes on after a dead
letter only when the burial has committed. Without a broker, `applier` calls the user's function in
the transaction that deletes the row.

So a failing or hot subject does not hold up the messages of other subjects. The order in one
publisher depends on no clock. The leases say which publisher sends a shard, and each row in memory
belongs to one epoch of them (docs/relay.md says when clocks could let two publishers send it).
`store` is the port to the tables, `sql_store` the tables themselves.

**One row that is relayed**, ``Publisher(database, sink)``. The row has a stage from its admission
on. `Rows` (`memory.rows`) is the only way from one stage to the next: it changes every book of
`Counted`, and raises for a step that the table of steps lacks. Here the stages are *waiting, sent,
acknowledged, settled*. The row takes the first two steps with its page, and the last two with the
rows that are answered with it.

1. `Reader._ask` asks for ranges of its shards (`SqlStore.read`). `Queues.admit_pages` takes the row
   into a page (*waiting*), if nothing else is known of its subject, and the subject's row before it
   is in the same page, acknowledged, settled or absent.
2. `Sender._send` takes pages (*sent*), while leases and topics allow, and starts a call of the sink
   for up to 500 rows. In `Sender._call`, `SinkCall.prepare_messages` makes the messages, and the
   sink publishes them.
3. The sink answers for each message. `Answers` checks the answer, and `SinkCall._deliver` marks the
   row. Those that are delivered in one turn of the event loop go to `Outcomes.deliver_part`,
   which notes them in `Changes` (*acknowledged*). So their subjects go on at once.
4. `Settler._delete` deletes the row with many others, by its whole key. Then it is *settled*.

**One row that fails, and is sent again**. The stages are *waiting, sent, outbox*, and then the four
of the row above.

1. The sink answers `Retry`, which blames the message. `SinkCall._take` lets the run of the row
   leave its page (`Queues.take_out`), so now its `Subject` has it. `Outcomes.act_on` notes that the
   topic works, and calls `Outcomes.fail`.
2. `PublisherSettings.for_topic` has the rules of the topic, and `FailureRules.consequence`
   (`publisher.topic_settings`) says what follows: another attempt, a block, or a dead letter.
3. An attempt or a block leaves a `Hold`: the row's id, its attempts, and when the next one is due:
   `FailureRules.backoff` has the time, and a block none. As long as a subject has one, no later row
   of it is admitted (`Subject.holds_back`).
4. `Queues.drop` drops the row and those behind it from the memory (*outbox*), and reads pass over
   the subject. `RetryTimes` lists the hold by its time. A blocked row waits for an operator.
5. `Settler._record` stores the failure in ``outbox_failures``, which the next owner of the shard
   reads.
6. When the hold is due, `Reader._keys` lists the row, `Reader._ask` asks for it by its key, and
   `Queues.admit` takes it (*waiting*). It takes room of `RETRIES` (`memory.shares`), which takes
   turns with the topics. `Queues.take` gives it to the sender, in a run of its own
   (`Subject.begin`).
7. When the broker has it, `Outcomes._end` forgets the hold, and has the rows behind it read.
   `Settler._delete` deletes the row, and `Settler._forget` the failure (`Changes.recover`).

A dead letter stays with its subject (*burying*). `Settler._bury` moves it to ``dead_letters``. When
that has committed, `Outcomes.note_buried` ends the row (*settled*), and the subject goes on.

**One row that leaves its page**. A row in a page is the row that it would be in the queue of its
subject, but is not made yet. `Queues.take_out` makes it, with its run and in its stage, as soon as
anything happens to it alone. From then on it takes the same steps by itself:

| what happens | where |
| --- | --- |
| a read brings another row of its subject | `Queues.admit` |
| its subject has a failure that only the tables know | `Reader._find_failures` |
| the call has a row of its key already | `SinkCall._add_page` |
| the broker answers anything but `Delivered`, or nothing | `SinkCall._take_out` |
| it is no valid message, or the map fails for it, rejects it or has had its turn | `SinkCall._one_by_one` |
| its run has more rows than may be sent now, or those are too few for a page | `Queues._cut` |
| its run has several rows, and the sink takes no runs or there is a map | `Queues.break_up` |
| its shard is lost while it is on its way | `Queues.forget_shard` |

`Queues.admit` takes a row that can be in no page into the queue of its subject. Its subject is in
memory already, or has many or large rows in the read, or rows of two topics; or the row is a
replay, has no payload, or is one of a few (`memory.paging`). A row whose predecessor is still in
the outbox, and neither in memory nor just settled, is dropped, and read again behind it. A page
whose topic is paused, or whose lease does not allow it now, is dropped as a whole, and its rows are
read again. `Queues.take` takes runs of subjects beside pages, and `Outcomes.act_on` ends them. A
relay that applies messages has no pages.

With a map, ``Publisher(database, sink, map=function)``, step 2 of a relayed row has more ends.
`SinkCall._map` asks `Mapper.map` for each message, which calls the function. `Outcomes.skip_part`
acknowledges the rows of a page that it leaves out. In a run of a subject such a row keeps its
place, and `Outcomes.skip` acknowledges it when it is the first one: at once, or in
`SinkCall._act_on` when the message before it is `Delivered`. A row that the map fails for or
rejects ends the run before it (`Outcomes.cut`). When it is the first one it goes to
`Outcomes.fail`, or with its topic to `Outcomes.refuse`. From then on `Reader._try_map` reads the
rows of that topic, a few at a time.

**One row that ends**. `Outcomes` has a method for each end of a row on its way. It asks each part
of the memory once, from top to bottom:

| end | the topic | what the tables must learn | the row and its run | the subject |
| --- | --- | --- | --- | --- |
| `deliver` | | `Changes.acknowledge` | *acknowledged*: `Queues.finish` | goes on |
| `skip` | | `Changes.acknowledge` | *acknowledged*: `Queues.finish` | goes on |
| `fail` | | `Changes.record` | *outbox*: `Queues.drop` | waits: `RetryTimes.add` |
| `fail`, as a dead letter | | `Changes.bury` | *burying*; the others wait: `Queues.requeue` | waits |
| `refuse` | is paused | | *outbox*: `Queues.drop` | waits for its topic |
| `defer` | is paused if nothing is taken | | *outbox*: `Queues.drop` | waits: `RetryTimes.add` |
| `rest` | | | *waiting*: `Queues.requeue_later` | goes on after 0.1 s |
| `give_back` | | | *waiting*: `Queues.requeue_later` | goes on |
| `drop` | | | *outbox*: `Queues.drop` | is read again |

Before `deliver` and `fail`, `act_on` notes that the topic works, since the broker has judged the
message. So does `deliver_part`, but no `skip`, as no broker has judged the row. `deliver_part` and
`skip_part` end rows of a page, which have no other end there. In a shard that was lost, all rows
that wait go to *outbox*, and `refuse` and `defer` only give the row back to the next owner; so does
`fail` when the lease is over. `rest` drops a row that takes the room of others. `Settler` writes
the changes. After that, `note_buried` and `note_applied` end a row that stayed with its subject
(*settled*), and the subject goes on.

**One failure of the broker**. A call of the sink goes through `KeptSink`, unless the caller has
opened the sink, `TracedSink` and `Sifter` to the broker's sink.

1. The sink answers for each message, or raises `SinkUnavailable` for the broker as a whole. A
   message without an answer is `NotAttempted`, as `Answers.end` says.
2. `Retry` and `Rejected` blame the message, and count an attempt (`Outcomes.fail`). `Rejected` does
   not wait: the message is a dead letter or blocked at once.
3. `Unavailable` blames the topic, and goes to `Outcomes.refuse`. After `TopicPauses.PAUSE` seconds
   one row of the topic is sent as a probe. The first answer that judges a message of the topic ends
   the pause: `Delivered`, `Retry` or `Rejected`.
4. `Deferred` blames a part of the broker. `Outcomes.defer` leaves a `Hold`, and the tables learn
   nothing of this try, which is no attempt. If nothing of the topic was taken for
   `TopicPauses.PAUSE` seconds since the first such answer, the topic is paused as in 3, and each
   probe is a row of another subject.
5. `NotAttempted` blames nobody. `Outcomes.rest` lets the row wait for 0.1 s, and it is sent again.
6. Any other error that the sink raises, except one of this library, which ends the publisher, comes
   to `Sifter` first, which sends the rest of the call in smaller calls. A message that raises
   alone, while others get through, gets the answer `Retry`. If nothing gets through, the error is
   raised. `KeptSink` then closes the sink, opens another one and raises `SinkUnavailable`. A sink
   that the caller opened ends the publisher instead.
7. `SinkUnavailable` blames the broker. After it, `Breaker` waits 0.1 s, twice as long after each
   failure that follows, and `OPEN_FOR` seconds after `FAILURES` in a row. Until the broker answers,
   one message at a time is sent as a probe, or an empty call if there is none (`Sender._ask`).
8. `Leases.note_sink_failure` starts the patience. After `broker_patience` seconds the publisher
   leaves its shards to others, if there are any that reach the broker. An answer to an empty call
   lets it take part again.

**One row of a read model that fails**, ``Publisher(database, apply=function)``. The stages are
*waiting, sent, applying*, and then those of a row that failed.

1. The sink is `Nowhere`, which answers `Delivered` for every message. `Outcomes.apply` is
   `Applier.add` here, and all rows of the run are *applying*. The subject sends nothing else
   until they are settled, so the order holds.
2. `Settler.settle` calls `Applier.apply`. A batch of at most 64 rows goes to `SqlStore.apply`,
   which runs `Session.transaction`. The budget `OPERATOR` tries a conflict again.
3. The transaction deletes the rows first. Fewer rows than asked mean that another publisher settled
   one: the answer is False, and nothing is stored. So the deleted row is the fence. It also answers
   for a COMMIT that was lost: if that has committed, the rows are gone at the next try.
4. `SessionTransaction.call` lends the connection to the function, for 1 s in a batch.
   `FunctionRun.judge` finds whose error it is: that of the function raises `FunctionFailed`, and
   one of a lost connection or a conflict the driver's error. `_Ends.commit` sends COMMIT behind the
   guards, and a failed guard is the function's error too. At the end the connection is closed
   unless its session is clean.
5. `Applier._narrow_down` acts on the failure of a batch. The last call names the row, unless it is
   the last one of the batch, after which COMMIT may have failed. Such a row is a suspect: the rows
   before it are applied with the others, and then it is applied *aside*, alone and on a connection
   of its own, for up to 10 s. Other subjects do not wait for it. If the row is not known, the next
   batch has half as many rows, as it has after a transaction that took longer than 1 s.
6. An error of the database that is no conflict blames no message. It is raised, and the relay waits
   and tries again. A row that is *aside* waits with the others then. A conflict that outlasts the
   budget fails the row, once it is alone.
7. `Applier._settle_or_fail` logs the first error of each kind, and gives the row to
   `Outcomes.fail`. It goes on as a row that fails, above. Its next attempt is *aside* at once.
"""
