"""A database URL that a command cannot use, in the bytes of a command line."""

import pytest
from click.testing import CliRunner

from dsql_outbox.cli.main import main


@pytest.mark.parametrize("command", ["status", "doctor", "console", "publish"])
@pytest.mark.parametrize(
    "url", ["embedded:\udcff", "postgresql://u:s3cret@h\udcff/db", "host=\udcff password=s3cret"]
)
def test_a_url_that_is_no_utf_8_is_wrong_usage(command: str, url: str) -> None:
    words = ["--sink", "stdout:"] if command == "publish" else []
    done = CliRunner().invoke(main, [command, "--database", url, *words])
    assert (done.exit_code, "the database URL is not UTF-8" in done.stderr) == (2, True)
    assert "s3cret" not in done.stderr
