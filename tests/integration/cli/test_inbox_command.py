"""The command `inbox prune`."""

import psycopg
from click.testing import CliRunner

from dsql_outbox.cli.main import main
from dsql_outbox.inbox import Inbox
from dsql_outbox.outbox import Database


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["inbox", "prune", *arguments])
    return done.exit_code, done.output


def test_old_messages_are_forgotten(url: str) -> None:
    with Inbox(Database(url), "mailer") as inbox:
        for each in "abc":
            inbox.once(each, lambda _: None)
    with psycopg.connect(url, autocommit=True) as sql:
        old = "UPDATE outbox.inbox SET seen_at = now() - interval '31 days' WHERE dedupe_id <> 'b'"
        sql.execute(old)
    named = ("--consumer", "mailer", "--older-than", "30d", "--database", url)
    assert run(*named) == (0, "mailer: 2 of 3 messages forgotten\n")
    assert run(*named, "--json") == (0, '{"consumer":"mailer","read":1,"forgotten":0}\n')


def test_wrong_usage(url: str) -> None:
    code, output = run("--consumer", "mailer", "--older-than", "30", "--database", url)
    assert (code, "'30' is not an age, a number and s, m, h or d" in output) == (2, True)
    code, output = run("--consumer", "a b", "--older-than", "1d", "--database", url)
    assert (code, "must be 1 to 64 of" in output) == (2, True)
