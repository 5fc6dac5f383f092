"""Charts, the history behind them, and the commands to copy."""

from shlex import split
from uuid import UUID

import pytest

from dsql_outbox.console.charts import brief, charts_of, line_path, nice, nice_time
from dsql_outbox.console.samples import History, Sample
from dsql_outbox.operations import Selection
from dsql_outbox.operations.operator_commands import Commands


def sample(at: float, waiting: int = 0) -> Sample:
    return Sample(at, waiting, False, 0.0, 1.5, None)


def test_the_history_keeps_the_first_and_the_latest_in_bounded_memory() -> None:
    history = History()
    assert history.samples == []
    for n in range(10_000):
        history.add(sample(float(n)))
        assert len(history.samples) <= 601
        assert (history.samples[0].at, history.samples[-1].at) == (0.0, float(n))
    times = [each.at for each in history.samples]
    assert times == sorted(set(times))
    assert len(times) > 300


@pytest.mark.parametrize(
    ("highest", "top"), [(0, 1), (1, 1), (1.2, 2), (4, 5), (5, 5), (6, 10), (11, 20), (990, 1000)]
)
def test_an_axis_ends_at_a_round_number(highest: float, top: float) -> None:
    assert nice(highest) == top


def test_an_axis_of_time_ends_at_a_round_time() -> None:
    tops = {seconds: nice_time(seconds) for seconds in (0, 3, 61, 3_700, 100_000)}
    assert tops == {0: 1, 3: 4, 61: 120, 3_700: 7_200, 100_000: 172_800}
    assert [brief(n) for n in (0, 0.5, 30, 120, 3_600)] == ["0 s", "0.5 s", "30 s", "2 min", "1 h"]


@pytest.mark.parametrize(
    ("highest", "labels"),
    [
        (0, ["1", "0.5", "0"]),
        (4, ["5", "2.5", "0"]),
        (990, ["1 k", "500", "0"]),
        (4_100, ["5 k", "2.5 k", "0"]),
        (1_700_000, ["2 M", "1 M", "0"]),
    ],
)
def test_the_labels_of_an_axis_are_where_their_numbers_are(highest: int, labels: list[str]) -> None:
    assert charts_of([sample(0.0), sample(1.0, highest)])[0].ticks == labels


def test_a_line_is_interrupted_where_a_value_is_unknown() -> None:
    assert line_path([0, 1, 2, 3], [0, None, 5, 10], 10) == "M0.0 100.0M666.7 50.0L1000.0 0.0"
    assert line_path([0], [1], 1) == ""


def test_a_chart_says_in_words_what_it_draws() -> None:
    backlog, age, rates = charts_of([sample(0.0, 4), sample(60.0, 12)])
    assert backlog.summary == "Waiting messages over 1 min: waiting now 12, at most 12"
    assert (backlog.ticks, backlog.table) == (
        ["20", "10", "0"],
        [["00:01:00", "12"], ["00:00:00", "4"]],
    )
    assert age.lines[0].latest == "0.0 s"
    assert [line.latest for line in rates.lines] == ["1.5/s", "unknown"]
    assert charts_of([])[0].lines[0].latest == "unknown"


def test_commands_are_quoted_and_name_the_schema() -> None:
    commands = Commands("mine")
    topic = "a'; rm -rf ~; echo '"
    words = ["dsql-outbox", "topics", "resume", "--schema", "mine", "--", topic]
    assert split(commands.resume(topic)) == words
    listed = commands.messages("list", Selection(subject="Car/$(id)"))
    assert split(listed)[3:] == ["--subject=Car/$(id)", "--schema", "mine"]
    assert commands.replay(UUID(int=1)).endswith(f"replay {UUID(int=1)} --schema mine")
    assert commands.resume("t\x1b]0;x") == (
        "# a name has control characters: select it by the id of an event"
    )
