"""The command `targets`, and `publish --target`, on a real database."""

from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from dsql_outbox.cli.main import main
from dsql_outbox.operations import targets as operator_targets
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import Writer


def run(url: str, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--database", url])


@pytest.fixture
def url(outbox_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(operator_targets, "LONGEST_TRANSACTION", 0.1)
    return outbox_url


def test_publish_relays_one_target_and_refuses_others(
    url: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dsql_outbox")
    assert run(url, "targets", "add", "lake").exit_code == 0
    assert run(url, "targets", "add", "orders", "--kind", "model").exit_code == 0
    with Writer(Database(url)) as writer:
        writer.write(Event.new("Sold", [Entity("Car", "1")]))
    words = ("publish", "--sink", "stdout:", "--until-empty")
    done = run(url, *words, "--target", "lake")
    assert (done.exit_code, len(capfd.readouterr().out.splitlines())) == (0, 1)
    assert "relaying target lake from " in caplog.text
    caplog.clear()
    for name, told in (
        ("lak", "there is no target 'lak', there are default, lake"),
        ("orders", "target orders is a model, not for a publisher with a sink; there are"),
    ):
        refused = run(url, *words, "--target", name)
        assert refused.exit_code == 2
        assert told in refused.stderr
        assert "relaying" not in caplog.text
    caplog.clear()
    done = run(url, *words)
    assert (done.exit_code, len(capfd.readouterr().out.splitlines())) == (0, 1)
    assert "target" not in caplog.text


def test_publish_applies_the_messages_of_a_model(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(url, "targets", "add", "models", "--kind", "model").exit_code == 0
    text = """async def apply(connection, message):
    await connection.execute("INSERT INTO public.seen VALUES (%s)", (message.key,))
"""
    (tmp_path / "applied_by_test.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.seen (key text)")
        with Writer(Database(url)) as writer:
            writer.write_many([Event.new("Sold", [Entity("Car", f"{n}")]) for n in range(3)])
        words = ("publish", "--until-empty", "--apply", "applied_by_test:apply")
        assert run(url, *words, "--target", "models").exit_code == 0
        found = connection.execute("SELECT key FROM public.seen ORDER BY 1").fetchall()
        assert found == [("Car/0",), ("Car/1",), ("Car/2",)]
        waiting = connection.execute("SELECT count(*) FROM outbox.outbox").fetchall()
        assert waiting == [(3,)], "those of the default target"
    both = run(url, *words, "--sink", "stdout:", "--target", "models")
    assert (both.exit_code, "give either --sink URL or --apply" in both.stderr) == (2, True)
