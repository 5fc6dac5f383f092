"""The file of ``publish --topics``."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from dsql_outbox.cli.main import main
from dsql_outbox.cli.publish import read_topics
from dsql_outbox.publisher import TopicSettings

GOOD = """
["events.LoanPaid"]
attempts = 3
on_dead_letter = "block"

["events.Loan*"]
backoff_base = 2
backoff_cap = 60.5
"""


def test_a_table_per_pattern_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "topics.toml"
    file.write_text(GOOD)
    found = read_topics(file)
    assert list(found.items()) == [
        ("events.LoanPaid", TopicSettings(attempts=3, on_dead_letter="block")),
        ("events.Loan*", TopicSettings(backoff_base=2.0, backoff_cap=60.5)),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'["a"]\natempts = 3', 'unknown key atempts in ["a"], there are attempts, backoff_base,'),
        (b"attempts = 3", "attempts is no table: write a pattern of topics as a table"),
        (b"[events.created]\nattempts = 3", "[events.created] needs quotes, because of the dot"),
        (b'["a"]\nattempts = "3"', '["a"]: Expected `int | null`, got `str` - at `$.attempts`'),
        (b'["a"]\nattempts = true', '["a"]: Expected `int | null`, got `bool` - at `$.attempts`'),
        (b'["a"]\nattempts = 0', "PublisherSettings.topics['a'].attempts must be above 0, got 0"),
        (b'["a"]\non_dead_letter = "drop"', "Invalid enum value 'drop' - at `$.on_dead_letter`"),
        (b'["a"]\nbackoff_base = nan', "['a'].backoff_base must be a finite number, got nan"),
        (b'["a"]\nattempts =', "Invalid value"),
        (b'["\xff"]', "can't decode byte 0xff"),
    ],
)
def test_a_file_that_is_not_understood_is_refused_by_file_and_key(
    tmp_path: Path, text: bytes, said: str
) -> None:
    file = tmp_path / "topics.toml"
    file.write_bytes(text)
    words = ["publish", "--database", "postgresql://nowhere", "--sink", "stdout:"]
    done = CliRunner().invoke(main, [*words, "--topics", str(file)])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"Error: {file}: ")
    assert said in done.stderr


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    words = ["publish", "--database", "postgresql://nowhere", "--sink", "stdout:"]
    done = CliRunner().invoke(main, [*words, "--topics", str(tmp_path / "none.toml")])
    assert done.exit_code == 2
    assert done.stderr == f"Error: {tmp_path / 'none.toml'}: No such file or directory\n"
