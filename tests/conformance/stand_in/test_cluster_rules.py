"""What the rules refuse, where, and that they let the rest pass."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import errors
from tests.support.dsql import cluster_rules
from tests.support.dsql.cluster_rules import BURST, CROWD, MAX_BYTES, RATE, kind_of
from tests.support.dsql.governed import GovernedPostgres
from tests.support.dsql.refusals import UNCACHED_IDENTITY, UNCACHED_SEQUENCE
from tests.support.proxy import wire_protocol as wire
from tests.support.writer.checked_tables import Tables

Session = psycopg.Connection[Any]
BULK = "INSERT INTO baseline_bulk SELECT generate_series(1, %s)"
ONE = "SELECT string_agg(md5(n::text), '') AS text FROM generate_series(1, %s) n"
LARGE = f"INSERT INTO large {ONE}"
SORT = """SELECT count(*) FROM (
  SELECT n, repeat(n::text, 200) AS word FROM generate_series(1, %d) AS n ORDER BY word OFFSET 1
) AS sorted"""  # about 1 kB a row
PIECE = (1 << 20) // 32  # numbers of which LARGE makes 1 MiB that cannot be compressed


@pytest.fixture
def one(governed: GovernedPostgres) -> Any:
    with psycopg.connect(governed.url, autocommit=True) as session:
        yield session


@pytest.fixture
def two(governed: GovernedPostgres) -> Any:
    with psycopg.connect(governed.url, autocommit=True) as session:
        yield session


@pytest.fixture
def large(tables: Tables, governed: GovernedPostgres) -> None:
    del governed  # makes the schema
    tables.execute("CREATE TABLE records.large (text text)")
    tables.execute("ALTER TABLE records.large ALTER COLUMN text SET STORAGE EXTERNAL")


def rows(tables: Tables, table: str) -> int:
    return int(tables.execute(f"SELECT count(*) AS n FROM records.{table}")[0]["n"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("-- why\n  /* and */ WITH a AS (SELECT 1)\nINSERT INTO t SELECT * FROM a", "write"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "read"),
        ("delete from t", "write"),
        ("SELECT 'DELETE FROM t'", "read"),
        ("START TRANSACTION", "begin"),
        ("END", "commit"),
        ("ABORT", "rollback"),
        ("GRANT SELECT ON t TO r", "ddl"),
        ("CREATED", "read"),
        ("", "read"),
    ],
)
def test_the_kind_of_a_statement_is_read_past_its_comments(sql: str, kind: str) -> None:
    assert kind_of(sql) == kind


# Rows.


def test_rows_are_counted_over_statements_and_in_data_modifying_ctes(one: Session) -> None:
    one.execute("BEGIN")
    one.execute(BULK, [2_999])
    one.execute("WITH a AS (INSERT INTO baseline_bulk VALUES (1) RETURNING id) SELECT id FROM a")
    with pytest.raises(errors.ProgramLimitExceeded, match="row limit"):
        one.execute("DELETE FROM baseline_bulk WHERE id = 7")
    assert one.execute("COMMIT").statusmessage == "ROLLBACK"  # and no error
    one.execute(BULK, [3_000])


def test_rows_of_the_transactions_before_do_not_count(one: Session, tables: Tables) -> None:
    for _ in range(3):
        one.execute(BULK, [2_000])
    assert rows(tables, "baseline_bulk") == 6_000


# Bytes and seconds, at the COMMIT.


@pytest.mark.usefixtures("large")
def test_bytes_are_counted_at_the_commit(one: Session, tables: Tables) -> None:
    one.execute("BEGIN")
    for _ in range(11):
        one.execute(LARGE, [PIECE])
    with pytest.raises(errors.ProgramLimitExceeded, match="size limit 10mb"):
        one.execute("COMMIT")
    assert one.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert rows(tables, "large") == 0
    with pytest.raises(errors.ProgramLimitExceeded, match="size limit 10mb"):
        one.execute(
            f"INSERT INTO large SELECT l.text FROM generate_series(1, 11), ({ONE}) l", [PIECE]
        )
    assert rows(tables, "large") == 0
    for _ in range(11):  # what was there before is nobody's
        one.execute(LARGE, [PIECE])
    assert rows(tables, "large") == 11


def test_the_age_is_that_of_the_transaction_at_its_commit(
    one: Session, tables: Tables, clock: Any
) -> None:
    one.execute("BEGIN")
    clock.now += 301
    one.execute(BULK, [1])
    with pytest.raises(errors.ProgramLimitExceeded, match="age limit of 300s"):
        one.execute("COMMIT")
    clock.now += 301
    one.execute("BEGIN")
    clock.now += 300
    one.execute(BULK, [1])
    one.execute("COMMIT")
    assert rows(tables, "baseline_bulk") == 1


# The schema.


def test_the_first_statement_after_a_change_of_the_schema_fails_and_no_other(
    one: Session, two: Session
) -> None:
    two.execute("SELECT 1")
    one.execute("CREATE TABLE records.other (id int)")
    one.execute("SELECT 1")  # it knows what it did
    with pytest.raises(errors.SerializationFailure, match="OC001"):
        two.execute("SELECT 1")
    two.execute("SELECT 1")
    one.execute("CREATE TABLE IF NOT EXISTS records.other (id int)")  # changes nothing
    two.execute("SELECT 1")


def test_a_change_of_the_schema_amid_a_transaction_fails_its_commit(
    one: Session, two: Session, tables: Tables
) -> None:
    two.execute("BEGIN")
    two.execute(BULK, [1])
    one.execute("CREATE TABLE records.other (id int)")
    with pytest.raises(errors.SerializationFailure, match="OC001"):
        two.execute("COMMIT")
    assert two.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert rows(tables, "baseline_bulk") == 0


def test_a_change_that_is_rolled_back_is_none(one: Session, two: Session) -> None:
    two.execute("SELECT 1")
    one.execute("BEGIN")
    one.execute("CREATE TABLE records.other (id int)")
    one.execute("ROLLBACK")
    two.execute("SELECT 1")


# What the cluster refuses and PostgreSQL takes.

UNSUPPORTED = {
    "CREATE SEQUENCE s": UNCACHED_SEQUENCE,
    "create sequence s cache 2": UNCACHED_SEQUENCE,
    "CREATE TABLE records.i (id bigint GENERATED ALWAYS AS IDENTITY)": UNCACHED_IDENTITY,
    "-- why\nCREATE TABLE records.t AS SELECT 1 AS n": "unsupported statement: CreateTableAs",
    "CREATE TABLE IF NOT EXISTS t AS SELECT 1": "unsupported statement: CreateTableAs",
    "SET TRANSACTION READ ONLY": 'setting configuration parameter "TRANSACTION" not supported',
    "SET lock_timeout = 5": 'setting configuration parameter "lock_timeout" not supported',
    "SET LOCAL work_mem = '1MB'": 'setting configuration parameter "work_mem" not supported',
    "BEGIN ISOLATION LEVEL SERIALIZABLE": "Unsupported isolation level: SERIALIZABLE",
    "MERGE INTO baseline_bulk t USING baseline_bulk s ON t.id = s.id WHEN MATCHED THEN DELETE": (
        "unsupported statement type: MERGE"
    ),
    "SELECT id FROM baseline_bulk TABLESAMPLE SYSTEM (1)": "TABLESAMPLE clause not supported",
    "DECLARE c CURSOR FOR SELECT 1": "unsupported statement: DeclareCursor",
    "FETCH ALL FROM c": "unsupported statement: Fetch",
    "CREATE INDEX i ON baseline_bulk (id DESC)": (
        "specifying sort order not supported for index keys"
    ),
    "CREATE INDEX i ON baseline_bulk (id NULLS FIRST)": (
        "specifying sort order not supported for index keys"
    ),
    "CREATE INDEX i ON baseline_bulk (id) WITH (fillfactor = 50)": (
        "WITH not supported for CREATE INDEX"
    ),
    "CREATE TABLE t (a varchar(65535), b character varying(65536))": (
        "length for type varying cannot exceed 65535"
    ),
    "CREATE TABLE t (a char(4097))": "length for type char cannot exceed 4096",
    "CREATE INDEX i ON baseline_bulk (id) TABLESPACE pg_default": (
        "TABLESPACE not supported for CREATE INDEX"
    ),
    "CREATE INDEX i ON baseline_parent (name text_pattern_ops)": (
        "operator class not supported for CREATE INDEX"
    ),
    "SELECT id FROM baseline_bulk FOR SHARE": (
        "locking clauses other than FOR UPDATE/FOR KEY SHARE are not supported"
    ),
    "SELECT id FROM baseline_bulk FOR NO KEY UPDATE OF baseline_bulk": (
        "locking clauses other than FOR UPDATE/FOR KEY SHARE are not supported"
    ),
    "ALTER TYPE baseline_mood ADD VALUE 'meh'": "ALTER TYPE not supported",
    "ALTER TYPE baseline_mood RENAME TO renamed": "unsupported object in RENAME statement",
    "DROP TYPE IF EXISTS baseline_mood": "unsupported object in DROP statement",
    "ALTER TABLE baseline_bulk ALTER COLUMN id TYPE bigint": (
        "unsupported ALTER TABLE ALTER COLUMN ... SET DATA TYPE statement"
    ),
    "CREATE TABLE t (v money)": "datatype money not supported",
    "CREATE TABLE t (a int, v bit(8) NOT NULL)": "datatype bit not supported",
    "CREATE TABLE t (v varbit(8))": "datatype bit varying not supported",
    "CREATE TABLE t (v int[])": "datatype integer[] not supported",
    "ALTER TABLE baseline_bulk ADD COLUMN bad text[]": "datatype text[] not supported",
    "ALTER TABLE baseline_bulk ADD v tsvector": "datatype tsvector not supported",
    "CREATE TABLE t (id smallint GENERATED BY DEFAULT AS IDENTITY (CACHE 1) PRIMARY KEY)": (
        "datatype smallint not supported, identity column type must be bigint"
    ),
    "SELECT circle('<(0,0),1>'::text)": "datatype circle not supported",
    "SELECT id INTO other FROM baseline_bulk": "unsupported statement: CreateTableAs",
    "ROLLBACK TO SAVEPOINT s": "unsupported transaction statement: ROLLBACK TO",
    "PREPARE p AS SELECT 1": "unsupported statement: Prepare",
    "DISCARD ALL": "unsupported statement: Discard",
    "SELECT pg_advisory_lock(1)": "function pg_advisory_lock not supported",
    "SELECT pg_catalog.pg_try_advisory_xact_lock(1)": (
        "function pg_try_advisory_xact_lock not supported"
    ),
}


def refusal(session: Session, sql: str) -> str | None:
    """The text with which a statement is refused; the session goes on."""
    with pytest.raises(errors.FeatureNotSupported) as refused:
        session.execute(sql.encode())
    assert session.execute("SELECT 1").fetchall() == [(1,)]
    return refused.value.diag.message_primary


@pytest.mark.parametrize("prepared", [False, True])
def test_what_a_cluster_does_not_support_is_refused(one: Session, prepared: bool) -> None:
    one.prepare_threshold = 0 if prepared else None
    assert {sql: refusal(one, sql) for sql in UNSUPPORTED} == UNSUPPORTED


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE SEQUENCE records.s CACHE 65536",
        "CREATE SEQUENCE records.s CACHE 1",
        "CREATE TABLE records.i (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1))",
        "CREATE TABLE records.t (n int)",
        "SET search_path = records",
        "SET SESSION timezone = 'UTC'",
        "SET TIME ZONE 'UTC'",
        "SELECT 'pg_advisory_lock(1)', 'CREATE SEQUENCE s' AS \"discard\"",
        "DEALLOCATE ALL",
        "SELECT id FROM baseline_bulk ORDER BY id DESC",
        "SELECT 1 AS merge, 2 AS tablesample",
        "CREATE TABLE records.t (serial text, point int, bit json, CHECK (point > 0))",
        "CREATE TABLE records.t (a varchar(9), b numeric(9, 2), c timestamp with time zone)",
        "INSERT INTO baseline_bulk SELECT id FROM baseline_bulk",
        "CREATE INDEX i ON records.baseline_bulk (id) INCLUDE (id)",
        (
            "SELECT p.id, x.pid FROM baseline_parent p CROSS JOIN LATERAL"
            " (SELECT p.id AS pid FROM baseline_bulk c) AS x"
        ),
        (
            "SELECT p.id, x.cid FROM baseline_parent p LEFT JOIN LATERAL"
            " (SELECT c.id AS cid FROM baseline_bulk c WHERE p.name = c.id::text) AS x ON TRUE"
        ),
        (
            "SELECT p.id, x.id FROM baseline_parent p LEFT JOIN LATERAL (SELECT baseline_bulk.id,"
            " b.id AS bid FROM records.baseline_bulk, baseline_bulk b) AS x ON TRUE"
        ),
    ],
)
def test_what_a_cluster_supports_runs(one: Session, sql: str) -> None:
    one.execute(sql.encode())


@pytest.mark.parametrize(
    ("listed", "where"),
    [
        ("p.id AS pid", " WHERE p.name = c.id::text"),
        ("p.id", ""),
        ("length(p.name)::bigint", ""),
        ("baseline_parent.id", " JOIN baseline_parent AS b ON TRUE"),
    ],
)
def test_a_left_lateral_join_that_lists_an_outer_column_is_refused(
    one: Session, listed: str, where: str
) -> None:
    """Recorded: q_lateral_left_outer_ref, q_lateral_left_no_outer_where, .._outer_ref_cast."""
    inner = f"SELECT {listed} FROM baseline_bulk AS c{where}"
    outer = "baseline_parent CROSS JOIN baseline_parent AS p"
    sql = f"SELECT 1 FROM {outer} LEFT JOIN LATERAL ({inner}) AS x ON TRUE"
    with pytest.raises(errors.DatatypeMismatch) as refused:
        one.execute(sql.encode())
    told = refused.value.diag.message_primary
    assert told == "attribute 1 of type baseline_bulk has wrong type"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([1 << 20], None),
        ([(1 << 20) + 1000], "column size limit 1mb exceeded"),
        ([1_000_000, 1_000_000], None),
        ([900_000] * 3, "row size limit 2mb exceeded"),
    ],
)
@pytest.mark.parametrize("begin", [False, True])
def test_a_value_or_a_row_that_is_too_large_is_refused_at_its_statement(
    one: Session, tables: Tables, sizes: list[int], message: str | None, begin: bool
) -> None:
    """Stored bytes count: text that compresses well may be longer."""
    columns = [f"c{n} text" for n in range(len(sizes))]
    tables.execute(f"CREATE TABLE records.wide ({', '.join(columns)}, short text)")  # type: ignore[arg-type]
    for column in columns:
        name = column.split()[0]
        tables.execute(f"ALTER TABLE records.wide ALTER {name} SET STORAGE EXTERNAL")  # type: ignore[arg-type]
    values = ", ".join(f"repeat('x', {size - 4})" for size in sizes)
    sql = f"INSERT INTO wide VALUES ({values}, repeat('x', 3000000))".encode()
    if begin:
        one.execute("BEGIN")
    if message is None:
        one.execute(sql)
    else:
        with pytest.raises(errors.ProgramLimitExceeded, match=message):
            one.execute(sql)
    if begin:
        one.execute("COMMIT")
    assert rows(tables, "wide") == (message is None)


@pytest.mark.parametrize(
    ("columns", "sizes", "is_refused"),
    [
        ("a text PRIMARY KEY", [1_981], False),
        ("a text PRIMARY KEY", [1_982], True),
        ("a text PRIMARY KEY", [9_999], True),
        ("a text, b varchar(600), PRIMARY KEY (a, b)", [1_382, 600], True),
        ("a text PRIMARY KEY, b text, c text", [1_000, 981, 1_000], False),
        ("a text PRIMARY KEY, b text UNIQUE", [1_000, 982], True),
        ("a bigint PRIMARY KEY, b text UNIQUE", [1, 1_973], False),
        ("a bigint PRIMARY KEY, b text UNIQUE", [1, 1_974], True),
        ("a text, b text, UNIQUE (a) INCLUDE (b)", [1_000, 1_000], False),
    ],
)
@pytest.mark.parametrize("begin", [False, True])
def test_a_key_that_is_too_long_is_refused_at_its_statement(
    one: Session, tables: Tables, columns: str, sizes: list[int], is_refused: bool, begin: bool
) -> None:
    """Also one that could be compressed; the primary key is part of each."""
    tables.execute(f"CREATE TABLE records.keyed ({columns})")  # type: ignore[arg-type]
    texts = ", ".join(str(size) if size == 1 else f"repeat('x', {size})" for size in sizes)
    sql = f"INSERT INTO keyed VALUES ({texts})".encode()
    if begin:
        one.execute("BEGIN")
    if is_refused:
        with pytest.raises(errors.ProgramLimitExceeded, match="key size too large"):
            one.execute(sql)
    else:
        one.execute(sql)
    if begin:
        one.execute("COMMIT")
    assert rows(tables, "keyed") == (not is_refused)


def test_a_new_table_of_an_old_name_has_keys_of_its_own(one: Session) -> None:
    long = b"INSERT INTO keyed VALUES (repeat('x', 2000))"
    one.execute("CREATE TABLE records.keyed (a text)")
    one.execute(long)
    one.execute("DROP TABLE records.keyed")
    one.execute("CREATE TABLE records.keyed (b text PRIMARY KEY)")
    with pytest.raises(errors.ProgramLimitExceeded, match="key size too large"):
        one.execute(long)


def test_a_query_that_needs_more_memory_than_it_may_is_refused(
    governed: GovernedPostgres,
) -> None:
    limit = "-c temp_file_limit=4096"  # a part of what the endpoint gives, so that it is quick
    few, many = (SORT % rows for rows in (100, 20_000))
    with psycopg.connect(governed.url, options=limit) as session:
        assert session.execute(few.encode()).fetchone() == (99,)
        with pytest.raises(errors.ProgramLimitExceeded) as refused:
            session.execute(many.encode())
    told = refused.value.diag.message_primary
    assert told == "query requires more than allowed temp space of 131072 KB to execute"


# Connections.


def test_a_sleeping_cluster_wakes_up_some_time_after_the_first_connection(
    governed: GovernedPostgres, clock: Any
) -> None:
    governed.sleeps.fall_asleep(wakes_up=8.0)
    told = "unable to accept connection, waking up cluster, please retry later"
    for seconds in (100.0, 4.0, 3.9):  # nobody has asked for it before
        clock.now += seconds
        with pytest.raises(psycopg.OperationalError, match=told):
            psycopg.connect(governed.url)
    clock.now += 0.2
    psycopg.connect(governed.url).close()


def test_a_sleeping_cluster_ends_its_sessions(governed: GovernedPostgres, one: Session) -> None:
    governed.sleeps.fall_asleep(wakes_up=8.0)
    with pytest.raises(psycopg.OperationalError, match="closed the connection"):
        one.execute("SELECT 1")


def test_a_cancel_request_reaches_the_server(one: Session, tables: Tables) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(one.execute, "SELECT pg_sleep(60)")
        while tables.execute(SLEEPING) == [{"n": 0}]:
            pass
        one.cancel_safe()
        with pytest.raises(errors.QueryCanceled):
            running.result()


def test_a_connection_lives_for_an_hour(one: Session, clock: Any) -> None:
    clock.now += 3600
    one.execute("SELECT 1")
    clock.now += 1
    with pytest.raises(psycopg.OperationalError, match="closed the connection"):
        one.execute("SELECT 1")


def test_openings_are_limited_a_second(governed: GovernedPostgres, clock: Any) -> None:
    def openings(count: int) -> list[Any]:
        return [governed.openings.open(0) for _ in range(count)]

    assert set(openings(BURST)) == {None}
    with pytest.raises(psycopg.OperationalError, match=RATE.message):
        psycopg.connect(governed.url)
    clock.now += 1
    assert openings(101) == [None] * 100 + [RATE]
    clock.now += 1
    psycopg.connect(governed.url).close()


def test_open_connections_are_limited(
    governed: GovernedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_rules, "MAX_OPEN", 1)
    with psycopg.connect(governed.url) as first:
        with pytest.raises(psycopg.OperationalError, match=CROWD.message):
            psycopg.connect(governed.url)
        first.close()
    governed.wait_until_closed(1)
    psycopg.connect(governed.url).close()


# Conflicts.

SLEEPING = "SELECT count(*) AS n FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"


@pytest.fixture
def row(tables: Tables, governed: GovernedPostgres) -> None:
    del governed  # makes the schema
    tables.execute("CREATE TABLE records.pairs AS SELECT 1 AS id, 0 AS n")


@pytest.mark.usefixtures("row")
def test_a_statement_alone_fails_itself(
    governed: GovernedPostgres, one: Session, two: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, may_commit = threading.Event(), threading.Event()

    async def wait() -> None:
        commits.set()
        await asyncio.to_thread(may_commit.wait)

    governed.commit_time = 1.0
    monkeypatch.setattr(governed, "pass_commit_time", wait)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(two.execute, "UPDATE pairs SET n = 2")
        commits.wait()
        governed.commit_time = 0.0
        one.execute("UPDATE pairs SET n = 1")
        may_commit.set()
        with pytest.raises(errors.SerializationFailure, match=r"^change conflicts .*\(OC000\)"):
            late.result()
    assert two.execute("UPDATE pairs SET n = n + 1 RETURNING n").fetchall() == [(2,)]


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("first", [True, False])
def test_who_lost_works_on_until_its_commit_and_leaves_nothing(
    one: Session, two: Session, tables: Tables, prepared: bool, first: bool
) -> None:
    """It meets the winner before or after that commits."""
    two.prepare_threshold = 0 if prepared else None
    two.execute(BULK, [3])  # prepared before the transaction
    one.execute("BEGIN")
    one.execute("UPDATE pairs SET n = 1")
    two.execute("BEGIN")
    two.execute(BULK, [3])
    if first:
        one.execute("COMMIT")
    changed = two.execute("UPDATE pairs SET n = n + %s RETURNING id", [5]).fetchall()
    if not first:
        one.execute("COMMIT")
    assert changed == [(1,)]
    assert two.execute("SELECT count(*) FROM baseline_bulk").fetchall() == [(6,)]
    with pytest.raises(errors.SerializationFailure, match="OC000"):
        two.execute("COMMIT")
    assert tables.execute("SELECT n FROM records.pairs") == [{"n": 1}]
    assert rows(tables, "baseline_bulk") == 3
    two.execute(BULK, [3])


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize("level", ["", " ISOLATION LEVEL READ COMMITTED"])
def test_a_transaction_sees_what_was_committed_at_its_begin(
    one: Session, two: Session, level: str
) -> None:
    """PostgreSQL would take the snapshot at the first statement, after the UPDATE."""
    two.execute(f"BEGIN{level}".encode())
    one.execute("UPDATE pairs SET n = 1")
    assert two.execute("SELECT n FROM pairs").fetchall() == [(0,)]
    two.execute("COMMIT")
    assert two.execute("SHOW transaction_isolation").fetchall() == [("repeatable read",)]


# The wire.


@pytest.mark.slow
def test_a_message_of_10_mib_is_taken_and_a_longer_one_ends_the_connection(one: Session) -> None:
    room = MAX_BYTES - len(wire.query("SELECT length('')").raw)
    assert one.execute(f"SELECT length('{'x' * room}')".encode()).fetchall() == [(room,)]
    with pytest.raises(psycopg.OperationalError, match="closed the connection"):
        one.execute(f"SELECT length('{'x' * (room + 1)}')".encode())


def test_a_pipeline_is_answered_statement_by_statement(one: Session, tables: Tables) -> None:
    first = one.cursor()

    def send_all() -> None:
        with one.pipeline():
            one.execute("BEGIN")
            first.execute(BULK, [2_000])
            one.execute(BULK, [2_000])
            one.execute("COMMIT")

    with pytest.raises(errors.ProgramLimitExceeded, match="row limit"):
        send_all()
    assert first.statusmessage == "INSERT 0 2000"
    one.execute("ROLLBACK")
    assert rows(tables, "baseline_bulk") == 0
