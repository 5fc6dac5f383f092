"""Our own rules of the SQL: each catches what it is for, and lets its near misses pass."""

import pytest
from tests.support.sql.inventory import inventory
from tests.support.sql.lint import lint, refused
from tests.support.sql.rules import MIXED, RULES, broken
from tests.support.sql.tokens import canonical

CAUGHT = {
    "notify": [
        "LISTEN a",
        "UNLISTEN *",
        "NOTIFY a, 'b'",
        "SELECT pg_catalog.pg_notify('a', $1)",
        'SELECT "pg_notify"($1, $2)',
    ],
    "copy": ["COPY t FROM STDIN", "COPY (SELECT 1) TO STDOUT", "-- why\ncopy t from stdin"],
    "advisory lock": [
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_xact_lock (1)",
        "SELECT pg_advisory_unlock_all()",
    ],
    "row lock": [
        "SELECT 1 FROM t FOR UPDATE",
        "SELECT 1 FROM t FOR /* x */ NO KEY UPDATE",
        "SELECT 1 FROM t FOR SHARE",
        "SELECT 1 FROM t\nFOR KEY SHARE OF t",
    ],
    "skip locked": [
        "SELECT 1 FROM t FOR UPDATE SKIP LOCKED",
        "SELECT 1 FROM t FOR UPDATE NOWAIT",
        "SELECT 1 FROM t FOR SHARE OF t SKIP LOCKED",
    ],
    "merge": [
        "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
        "WITH a AS (SELECT 1) MERGE INTO t USING a ON true WHEN MATCHED THEN DELETE",
    ],
    "tablesample": ["SELECT 1 FROM t TABLESAMPLE system (1)"],
    "group by all": ["SELECT a FROM t GROUP BY ALL"],
    "set": [
        "SET statement_timeout = 5",
        "RESET ALL",
        "SET LOCAL search_path = a",
        "SET TRANSACTION READ ONLY",
        "SET default_transaction_isolation = 'serializable'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SELECT set_config('a.b', '1', true)",
    ],
    "isolation": [
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "BEGIN READ WRITE",
        "START TRANSACTION ISOLATION LEVEL READ COMMITTED",
    ],
    "savepoint": [
        "SAVEPOINT a",
        "RELEASE a",
        "ROLLBACK TO a",
        "ROLLBACK TRANSACTION TO SAVEPOINT a",
    ],
    "discard": ["DISCARD ALL"],
    "deallocate": ["DEALLOCATE _pg3_0", "DEALLOCATE PREPARE a"],
    "prepare": ["PREPARE a AS SELECT 1", "EXECUTE a", "EXPLAIN EXECUTE a", "COMMIT PREPARED 'a'"],
    "cursor": ["DECLARE a CURSOR FOR SELECT 1", "FETCH 1 FROM a", "CLOSE a"],
    "lock table": ["LOCK TABLE t", "LOCK t IN SHARE MODE NOWAIT"],
    "truncate": ["TRUNCATE t"],
    "temporary": [
        "CREATE TEMP TABLE t (a int)",
        "CREATE GLOBAL TEMPORARY TABLE t (a int)",
        "CREATE UNLOGGED TABLE t (a int)",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
    ],
    "select into": [
        "SELECT a INTO b FROM c",
        "CREATE TABLE a AS SELECT 1",
        'CREATE TABLE "s".a AS SELECT 1',
    ],
    "sequence": [
        "CREATE SEQUENCE s",
        "SELECT nextval('s')",
        "CREATE TABLE t (a bigserial)",
        "CREATE TABLE t (a bigint GENERATED ALWAYS AS IDENTITY)",
    ],
    "array column": ["CREATE TABLE t (a int[])", "ALTER TABLE t ADD COLUMN a text ARRAY"],
    "type": [
        "SELECT $1::money",
        "SELECT CAST(f(a, (b)) AS xml)",
        "CREATE TABLE t (a int, b citext)",
        "CREATE TABLE t (a int, b numeric(9, 2), c inet)",
        "ALTER TABLE t ADD COLUMN a hstore",
        "ALTER TABLE t ALTER COLUMN a TYPE money",
        "SELECT 'x'::\"Mood\"",
    ],
    "sync index": [
        "CREATE INDEX a ON t (b)",
        "CREATE UNIQUE INDEX a ON t (b)",
        "CREATE INDEX CONCURRENTLY a ON t (b)",
    ],
    "index key": [
        "CREATE INDEX ASYNC a ON t (b) WHERE b > 0",
        "CREATE INDEX ASYNC a ON t (b DESC)",
        "CREATE INDEX ASYNC a ON t USING btree (b)",
        "CREATE INDEX ASYNC s.a ON t (b)",
        "CREATE INDEX ASYNC a ON t (b, c text_pattern_ops)",
    ],
    "lateral": [
        "SELECT 1 FROM a LEFT JOIN LATERAL (SELECT a.b FROM c WHERE c.d = a.d) AS x ON true",
        'SELECT 1 FROM "a" LEFT OUTER JOIN LATERAL (SELECT c.x + "a".b FROM c) AS x ON true',
    ],
    "newer function": [
        "SELECT uuidv7()",
        "SELECT pg_catalog.to_bin(5)",
        "SELECT JSON_VALUE('{}', '$')",
    ],
    "object": [
        "CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
        "CREATE EXTENSION a",
        "CREATE MATERIALIZED VIEW a AS SELECT 1",
        "CREATE TYPE a AS ENUM ('b')",
        "ALTER SYSTEM SET a = 1",
    ],
    "language": ["CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$begin return 1; end$$"],
    "command": ["VACUUM", "DO $$begin end$$", "REINDEX TABLE t", "REFRESH MATERIALIZED VIEW v"],
    "mixed": [
        "CREATE TABLE t (a int); INSERT INTO t VALUES (1)",
        "BEGIN; CREATE SCHEMA a; CREATE SCHEMA b; COMMIT",
        "GRANT SELECT ON t TO a; SELECT 1",
    ],
}

PASS = [
    "SELECT 'pg_notify(a)', 'FOR UPDATE SKIP LOCKED', $a$TABLESAMPLE$a$, E'\\' FOR SHARE'",
    "SELECT 1 -- FOR UPDATE\n/* SELECT pg_advisory_lock(1) /* MERGE INTO t */ */ FROM t",
    'SELECT "for update", "merge into", "tablesample", "copy" FROM "skip locked"',
    "SELECT pg_notify, a.pg_advisory_lock, nextval, uuidv7 FROM t",
    "SELECT copy, listen, notify, lock, prepare, discard, truncate, nowait FROM t",
    "INSERT INTO t (a) SELECT 1 FROM b",
    "WITH a AS (INSERT INTO t VALUES (1) RETURNING b) SELECT b FROM a",
    "UPDATE t SET a = 1 WHERE b = $1",
    "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = EXCLUDED.a",
    "SET search_path = a",
    "SET SESSION timezone = 'UTC'",
    "RESET role",
    'SET "client_encoding" = a',
    "BEGIN",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "BEGIN READ ONLY",
    "START TRANSACTION",
    "COMMIT",
    "ROLLBACK",
    "DEALLOCATE ALL",
    "BEGIN; INSERT INTO t VALUES (1); COMMIT",
    "BEGIN; CREATE SCHEMA a; COMMIT",
    "CREATE TABLE t (a int PRIMARY KEY, b varchar(9) NOT NULL, PRIMARY KEY (a, b))",
    "CREATE TABLE t (c timestamp with time zone, d double precision, e numeric(9, 2) DEFAULT 1)",
    'CREATE TABLE t ("serial" text, temp int, listen jsonb)',
    "SELECT $1::text::uuid[], CAST($2 AS bigint), '{1}'::text::int[], $3::pg_catalog.text",
    "ALTER TABLE t ADD COLUMN IF NOT EXISTS a varchar(255)",
    'CREATE INDEX ASYNC IF NOT EXISTS a ON "s".t (b, c)',
    "CREATE UNIQUE INDEX ASYNC a ON t (lower(b))",
    "SELECT 1 FROM a LEFT JOIN LATERAL (SELECT c.b FROM c WHERE c.d = a.d) AS x ON true",
    "SELECT 1 FROM a CROSS JOIN LATERAL (SELECT a.b FROM c) AS x",
    "SELECT 1 FROM a LEFT JOIN LATERAL (SELECT e FROM c) AS x ON true",
    "SELECT a FROM t GROUP BY a",
    "SELECT gen_random_uuid()",
    "SELECT a FROM t ORDER BY a DESC",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$SELECT 1; SELECT 2$$",
    "CREATE OR REPLACE VIEW v AS SELECT a FROM t",
    "DROP INDEX IF EXISTS a",
    "",
]


def names(text: str) -> list[str]:
    return [rule.name for rule in broken(text)]


def test_every_rule_has_an_example() -> None:
    assert set(CAUGHT) == {rule.name for rule in (*RULES, MIXED)}


@pytest.mark.parametrize("rule", CAUGHT)
def test_a_rule_catches_what_it_is_for(rule: str) -> None:
    for text in CAUGHT[rule]:
        assert rule in names(text)
        assert rule in names(
            f"-- why\n{text.upper() if chr(39) not in text and chr(34) not in text else text}\n"
        )


def test_a_near_miss_passes() -> None:
    assert {text: found for text in PASS if (found := names(text))} == {}


@pytest.mark.parametrize("text", ["SELECT 'a", 'SELECT "a', "SELECT 1 /* /* */", "SELECT {a}"])
def test_what_is_no_sql_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read SQL at character"):
        broken(text)


def test_comments_layout_and_case_of_words_do_not_matter() -> None:
    assert canonical("-- why\nSELECT\t'It''s  A' /* b */ , \"C\"\n") == "select 'It''s  A' , \"C\""


def test_what_the_inventory_excuses_is_not_refused_there_and_only_there() -> None:
    counters = next(each for each in inventory() if each.name == "status_counters")
    assert refused(counters.example) == []
    assert refused(counters.example.replace("_deleted", "_updated")) == ["type"]


def test_a_broken_rule_and_a_needless_excuse_are_faults() -> None:
    entry = inventory()[0]._replace(
        example="TRUNCATE t", excused=frozenset({"copy"}), reason="a test"
    )
    (linted,) = lint([entry])
    assert linted.own == ("truncate",)
    assert linted.linter == ("truncate",)
    assert linted.faults == [
        "breaks dsql-lint truncate",
        "breaks truncate (no TRUNCATE)",
        "needs no excuse for copy",
    ]
