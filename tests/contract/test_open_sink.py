"""From a URL to a sink, ours or another package's."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from dsql_outbox.cli.publish import publish as publish_command
from dsql_outbox.outbox import MissingExtra, SettingsError
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks.registry import installed_sinks

pytestmark = pytest.mark.anyio

CODE = """
from contextlib import asynccontextmanager

class AcmeSink:
    system = "acme"

    def __init__(self, url):
        self.url = url
        self.is_open = True

@asynccontextmanager
async def open_acme(url):
    sink = AcmeSink(url)
    yield sink
    sink.is_open = False
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed distribution with a sink for ``acme:``."""
    (tmp_path / "acme_sink.py").write_text(CODE)
    metadata = tmp_path / "acme_sink-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-sink\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[dsql_outbox.sinks]\nacme = acme_sink:open_acme\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    installed_sinks.cache_clear()
    yield
    installed_sinks.cache_clear()
    sys.modules.pop("acme_sink", None)


def schemes() -> list[str]:
    """Those of all sinks, ours and the other package's."""
    found = installed_sinks().names
    assert {"acme", "jsonl"} < found
    return [f"{name}:" for name in found]


@pytest.mark.usefixtures("acme")
async def test_a_sink_of_another_package_is_found_by_its_scheme() -> None:
    async with open_sink("acme://host?x=1") as sink:
        assert (sink.system, vars(sink)) == (
            "acme",
            {"url": "acme://host?x=1", "is_open": True},
        )

    assert not vars(sink)["is_open"]


@pytest.mark.usefixtures("acme")
def test_an_unknown_scheme_is_refused_and_all_known_ones_are_named() -> None:
    with pytest.raises(SettingsError) as refused:
        open_sink("smtp://user:secret@host")

    assert "smtp:" in str(refused.value)
    assert "docs/writing-a-sink.md" in str(refused.value)
    for known in schemes():
        assert known in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.usefixtures("acme")
def test_the_help_of_the_command_names_all_sinks() -> None:
    shown = CliRunner().invoke(publish_command, ["--help"]).output

    for known in schemes():
        assert known in shown


@pytest.mark.parametrize(
    ("extra", "package", "modules", "url"),
    [
        ("nats", "nats", ("nats.sink", "nats.client"), "nats://127.0.0.1:4222"),
        ("sqs", "boto3", (), "sqs://events"),
        ("sns", "boto3", (), "sns://arn:aws:sns:eu-west-1:123456789012:events"),
        ("eventbridge", "boto3", (), "eventbridge://events"),
        ("kafka", "confluent_kafka", ("kafka.sink", "kafka.client"), "kafka://127.0.0.1:9092"),
        (
            "rabbitmq",
            "aiormq",
            ("rabbitmq.sink", "rabbitmq.call", "rabbitmq.connection"),
            "rabbitmq://127.0.0.1",
        ),
        ("redis", "redis", ("redis.sink", "redis.refusal"), "redis://127.0.0.1:6379"),
    ],
)
async def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, extra: str, package: str, modules: tuple[str, ...], url: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package] + [package]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in modules:
        monkeypatch.delitem(sys.modules, f"dsql_outbox.brokers.{name}", raising=False)

    with pytest.raises(MissingExtra, match=rf"needs the extra \[{extra}\]: pip install "):
        async with open_sink(url):
            pass


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        ("creds", "BEGIN NATS USER JWT\nBEGIN USER NKEY SEED\n"),
        ("nkey", "SU" + "A" * 56),
    ],
)
async def test_credentials_in_a_file_need_the_extra_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parameter: str, text: str
) -> None:
    file = tmp_path / "user"
    file.write_text(text)
    monkeypatch.setitem(sys.modules, "nkeys", None)

    with pytest.raises(MissingExtra, match=r"needs the extra \[nats\]: pip install "):
        async with open_sink(f"nats://127.0.0.1:4222?{parameter}={file}"):
            pass
