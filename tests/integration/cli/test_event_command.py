"""``dsql-outbox event``: where an event is, in each of its states, without a trace."""

import pytest
from click.testing import CliRunner, Result
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_trace_id
from tests.support.publisher.given_up_messages import event

from dsql_outbox.cli.main import main
from dsql_outbox.observability import TraceFacts
from dsql_outbox.outbox import Database
from dsql_outbox.writer import Writer


def run(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words), "--database", url])


def asked(url: str, wanted: object, *words: str) -> str:
    """What the command prints, with its line breaks as spaces."""
    done = run(url, "event", wanted, *words)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80 or "  dsql-outbox " in done.stdout
    return " ".join(done.stdout.split())


@pytest.mark.parametrize("base", ["http://localhost:16686", "https://jaeger.example/ui"])
def test_the_trace_of_a_kept_message_is_named(url: str, base: str) -> None:
    given, provider = event("a"), TracerProvider(shutdown_on_exit=False)
    with (
        provider.get_tracer("shop").start_as_current_span("request") as span,
        Writer(Database(url), hooks=[TraceFacts(provider)]) as writer,
    ):
        writer.write(given)
    trace_id = format_trace_id(span.get_span_context().trace_id)
    assert asked(url, given.id, "--jaeger", f"{base}/").endswith(f"{base}/trace/{trace_id}")
    assert asked(url, given.id).endswith(f"Its trace: {trace_id}")
