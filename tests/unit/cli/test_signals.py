"""Which signals end a command in order."""

import signal
from collections.abc import Iterator

import click
import pytest

from dsql_outbox.cli.signals import ending_signals, interruptible


@pytest.fixture(params=[signal.SIG_DFL, signal.SIG_IGN])
def hangup(request: pytest.FixtureRequest) -> Iterator[signal.Handlers]:
    """What SIGHUP does when the command starts."""
    before = signal.signal(signal.SIGHUP, request.param)
    yield request.param
    signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_closes_ends_a_command_unless_nohup_started_it(
    hangup: signal.Handlers,
) -> None:
    is_ended = signal.SIGHUP in ending_signals()
    assert is_ended is (hangup is signal.SIG_DFL)
    assert signal.SIGTERM in ending_signals()


@pytest.mark.parametrize(
    ("interrupt", "code"), [(KeyboardInterrupt(), 130), (KeyboardInterrupt(signal.SIGTERM), 143)]
)
def test_a_command_that_was_stopped_says_how_to_go_on(
    interrupt: KeyboardInterrupt, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(click.exceptions.Exit) as ended, interruptible(lambda: "7 rows"):
        raise interrupt
    assert ended.value.exit_code == code
    assert capsys.readouterr().err == "stopped: 7 rows\n"
