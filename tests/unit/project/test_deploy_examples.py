"""The files of examples/deploy agree with the command, with each other and with the docs.

No test here starts Docker, systemd or a cluster.
"""

import json
import re
import shlex
from signal import SIGHUP, SIGTERM
from typing import Any

import click
import pytest
import yaml
from tests.support.checkout import ROOT
from tests.support.parsed_options import params

from dsql_outbox.brokers.nats.url import parse_nats_url
from dsql_outbox.cli.exit_codes import FAILED, OVERDUE, Misused, TablesMissing, Unreachable
from dsql_outbox.cli.main import main
from dsql_outbox.cli.named_functions import named_map
from dsql_outbox.cli.relay.daemon import Address
from dsql_outbox.cli.telemetry.exports import FLUSH_SECONDS
from dsql_outbox.http_server.server import CONNECTIONS, SECONDS
from dsql_outbox.operations.health import STUCK
from dsql_outbox.operations.health_probe import EVERY
from dsql_outbox.outbox import Entity, Event
from dsql_outbox.testing import mapped

FOLDER = ROOT / "examples" / "deploy"
UNIT = (FOLDER / "dsql-outbox.service").read_text()
MANIFEST = yaml.safe_load((FOLDER / "publisher.yaml").read_text())
FORGET_UNIT = (FOLDER / "dsql-outbox-forget.service").read_text()
FORGET = yaml.safe_load((FOLDER / "forget.yaml").read_text())
MIGRATE = yaml.safe_load((FOLDER / "migrate.yaml").read_text())
STACK = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
IMAGE = (FOLDER / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PAGE = (ROOT / "docs/deploy.md").read_text()
POD = MANIFEST["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]

MARGIN = parse_nats_url("nats://localhost").timeout + FLUSH_SECONDS
"""Seconds that may pass after the drain: the sink closes, spans and metrics are sent."""


def unit(key: str, text: str = UNIT) -> str:
    (value,) = re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)
    return str(value)


def systemd() -> dict[str, Any]:
    return params(shlex.split(unit("ExecStart"))[1:])


def in_image(words: list[str]) -> dict[str, Any]:
    """The options of a command of the image, which names the program."""
    program, *rest = words
    assert program == "dsql-outbox"
    return params(rest)


def kubernetes() -> dict[str, Any]:
    return in_image(CONTAINER["args"])


def stack() -> dict[str, Any]:
    return in_image(STACK["publisher"]["command"])


@pytest.mark.parametrize(
    "found", [systemd(), kubernetes(), stack()], ids=["systemd", "kubernetes", "compose"]
)
def test_the_options_are_ones_that_the_command_has_and_the_map_makes_a_message(
    found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(found["listen"], Address)
    assert not found["until_empty"]
    monkeypatch.syspath_prepend(FOLDER)
    event = Event.new("OrderPlaced", [Entity("Order", "1", {"total": "12.50"})])
    message = mapped(named_map(found["map_name"]), event)
    wanted = {"what": "OrderPlaced", "order": "1", "total": "12.50"}
    assert json.loads(message.payload) == wanted


def test_the_image_has_each_file_and_extra_that_its_commands_need() -> None:
    copied = set(re.findall(r"\w+\.py", IMAGE))
    assert copied == {path.name for path in FOLDER.glob("*.py")}
    (extras,) = re.findall(r"\[([a-z,]+)\]", IMAGE)
    assert {"binary", "cli", "fastapi", "prometheus", "rabbitmq"} == set(extras.split(","))
    for service, awaited in {
        "application": {"migrate"},
        "publisher": {"migrate", "queues"},
    }.items():
        assert set(STACK[service]["depends_on"]) == awaited
    assert in_image(STACK["migrate"]["command"]) == in_image(["dsql-outbox", "schema", "apply"])
    (job,) = MIGRATE["spec"]["template"]["spec"]["containers"]
    assert job["args"] == STACK["migrate"]["command"]
    assert job["image"] == CONTAINER["image"]


def test_the_page_shows_the_files_as_they_are() -> None:
    files = "\n".join(path.read_text() for path in FOLDER.iterdir() if path.is_file())
    stack, heading, _ = PAGE.partition("\n## In your own program\n")
    assert heading
    shown = re.findall(r"(?ms)^```python\n(.*?)^```$", stack)
    assert shown
    wanted = {line for block in shown for line in block.splitlines() if line}
    assert wanted <= set(files.splitlines())


@pytest.mark.parametrize(
    ("grace", "drain"),
    [
        (float(unit("TimeoutStopSec")), systemd()["drain"]),
        (POD["terminationGracePeriodSeconds"], kubernetes()["drain"]),
        (float(COMPOSE["services"]["publisher"]["stop_grace_period"].removesuffix("s")), 20.0),
        (float(STACK["publisher"]["stop_grace_period"].removesuffix("s")), stack()["drain"]),
    ],
    ids=["systemd", "kubernetes", "demo", "compose"],
)
def test_nobody_is_killed_before_the_drain_and_what_follows_it_are_over(
    grace: float, drain: float
) -> None:
    assert grace > drain + MARGIN


def test_systemd_restarts_it_unless_a_person_is_needed() -> None:
    assert unit("Restart") == "on-failure"
    never = {int(code) for code in unit("RestartPreventExitStatus").split()}
    assert never == {Misused.exit_code, TablesMissing.exit_code}


def test_systemd_keeps_the_urls_out_of_the_command_line() -> None:
    assert "://" not in unit("ExecStart")
    assert set(re.findall(r"^#   (\w+)=", UNIT, re.MULTILINE)) == {
        "DSQL_OUTBOX_DATABASE",
        "DSQL_OUTBOX_SINK",
    }
    assert systemd()["listen"].host == "127.0.0.1"


def test_kubernetes_asks_where_it_listens() -> None:
    (port,) = CONTAINER["ports"]
    assert kubernetes()["listen"] == Address("0.0.0.0", port["containerPort"])
    probes = {
        kind: CONTAINER[f"{kind}Probe"]["httpGet"] for kind in ("liveness", "readiness", "startup")
    }
    assert probes == {
        "liveness": {"path": "/healthz", "port": port["name"]},
        "readiness": {"path": "/readyz", "port": port["name"]},
        "startup": {"path": "/healthz", "port": port["name"]},
    }
    annotations = MANIFEST["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert annotations["prometheus.io/path"] == "/metrics"


def test_kubernetes_has_the_urls_from_a_secret() -> None:
    sources = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in CONTAINER["env"]}
    assert set(sources) == {"DSQL_OUTBOX_DATABASE", "DSQL_OUTBOX_SINK"}
    text = (FOLDER / "publisher.yaml").read_text()
    for source in sources.values():
        assert f"--from-literal={source['key']}=" in text


def test_kubernetes_runs_it_as_the_user_of_the_image_and_with_no_rights() -> None:
    (uid,) = re.findall(r"^USER (\d+)$", IMAGE, re.MULTILINE)
    assert POD["securityContext"]["runAsUser"] == int(uid)
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(CONTAINER["resources"]["limits"]) == {"memory"}


@pytest.mark.parametrize("manifest", [MANIFEST, FORGET], ids=["publisher", "forget"])
def test_the_selector_finds_the_pods(manifest: dict[str, Any]) -> None:
    assert (
        manifest["spec"]["selector"]["matchLabels"]
        == manifest["spec"]["template"]["metadata"]["labels"]
    )


def test_what_forgets_differs_from_the_publisher_in_what_it_runs_alone() -> None:
    pod = FORGET["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for given in (
        params(shlex.split(unit("ExecStart", FORGET_UNIT))[1:]),
        in_image(container["args"]),
    ):
        assert {"every", "before", "yes"} <= {name for name, value in given.items() if value}
    for key in ("securityContext", "automountServiceAccountToken"):
        assert pod[key] == POD[key]
    assert container["image"] == CONTAINER["image"]
    assert container["securityContext"] == CONTAINER["securityContext"]
    assert "://" not in unit("ExecStart", FORGET_UNIT)
    for key in ("Restart", "RestartPreventExitStatus", "DynamicUser", "ProtectSystem"):
        assert unit(key, FORGET_UNIT) == unit(key)


def test_the_docs_have_every_exit_code_and_so_has_the_help() -> None:
    codes = {0, FAILED, OVERDUE, 130, Misused.exit_code, Unreachable.exit_code}
    codes.add(TablesMissing.exit_code)
    page = (ROOT / "docs/reference/commands.md").read_text()
    section = page.split("## Exit codes", 1)[1].split("\n## ", 1)[0]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    assert told == codes | {128 + signal for signal in (SIGHUP, SIGTERM)}
    command = main.get_command(click.Context(main), "publish")
    assert command is not None
    epilog = command.epilog or ""
    assert {int(code) for code in re.findall(r"^  (\d+) +\w", epilog, re.MULTILINE)} == codes


@pytest.mark.parametrize(
    "said",
    [
        f"for {STUCK:.0f} s, though",
        f"statement every {EVERY:.0f} s",
        f"at most {CONNECTIONS} clients at once, and gives each {SECONDS:.0f} seconds to send",
        "up to `--drain` seconds (20)",
    ],
)
def test_the_docs_have_the_numbers_of_the_code(said: str) -> None:
    assert said in " ".join(PAGE.split())
