"""docker-compose.yml and the Dockerfile agree with each other and with the command line.

No test here starts a container.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import click
import pytest
import yaml
from rich.console import Console
from tests.support.checkout import ROOT

from dsql_outbox.cli.demo.report import show_page
from dsql_outbox.cli.demo.span_tree import SpanView
from dsql_outbox.cli.main import main
from dsql_outbox.cli.telemetry import otel_environment

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROMETHEUS = yaml.safe_load((ROOT / "observability/prometheus/prometheus.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = ["publisher", "schema"]

PINNED = re.compile(r"[\w./-]+:v?\d[\w.-]*")
HOST = re.compile(r"://(?:[^@/\s]*@)?([\w.-]+)")


def leaf_command(group: click.Command, args: list[str]) -> tuple[click.Command, list[str]]:
    """The subcommand that `args` name, and the arguments that are its own."""
    while isinstance(group, click.Group):
        name, found, args = group.resolve_command(click.Context(group), args)
        assert found is not None, name
        group = found
    return group, args


def texts(value: Any) -> Iterator[str]:
    """Every text in a piece of YAML."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    if isinstance(value, str):
        yield value


def copied_from_the_checkout() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()]


def test_every_image_is_pinned() -> None:
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    assert len(images) == 5
    assert [image for image in images if not PINNED.fullmatch(image)] == []


def test_the_image_is_built_from_one_base_that_a_digest_names() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases[1:] == ["base"] * 2
    assert re.fullmatch(rf"{PINNED.pattern}@sha256:[0-9a-f]{{64}}", bases[0])


def test_the_image_is_built_by_the_uv_of_the_lock_file() -> None:
    locked = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    (version,) = [package["version"] for package in locked if package["name"] == "uv"]
    assert f'"uv=={version}"' in DOCKERFILE


def test_the_health_check_asks_where_the_publisher_listens() -> None:
    (place,) = re.findall(r"^ENV DSQL_OUTBOX_LISTEN=(\S+)$", DOCKERFILE, re.MULTILINE)
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (.+)$", DOCKERFILE, re.MULTILINE)
    program, *_, script = json.loads(check)
    assert program == "/app/.venv/bin/python"
    assert f"http://{place}/healthz" in script
    publish, _ = leaf_command(main, ["publish"])
    (listen,) = [option for option in publish.params if option.name == "listen"]
    assert listen.envvar == "DSQL_OUTBOX_LISTEN"


def test_the_publisher_starts_after_the_tables_are_made_and_nats_is_up() -> None:
    assert SERVICES["schema"]["depends_on"] == {"dsql": {"condition": "service_healthy"}}
    assert SERVICES["publisher"]["depends_on"] == {
        "schema": {"condition": "service_completed_successfully"},
        "nats": {"condition": "service_healthy"},
    }


def test_what_is_waited_for_until_healthy_has_a_health_check() -> None:
    waited_for = {
        name
        for service in SERVICES.values()
        for name, wait in service.get("depends_on", {}).items()
        if wait["condition"] == "service_healthy"
    }
    assert waited_for == {"dsql", "nats"}
    assert all(SERVICES[name]["healthcheck"]["test"][0] == "CMD" for name in waited_for)


def test_ports_are_open_on_the_loopback_only_since_nothing_asks_for_a_password() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {
        "dsql": ["127.0.0.1:55432:5432"],
        "nats": ["127.0.0.1:4222:4222"],
        "jaeger": [f"127.0.0.1:{port}:{port}" for port in (4317, 4318, 16686)],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
        "publisher": ["127.0.0.1:9464:9464"],
    }


def test_every_host_is_a_service_or_the_container_itself() -> None:
    hosts = {host for text in texts(SERVICES) for host in HOST.findall(text)}
    assert {"dsql", "nats", "jaeger"} <= hosts
    assert hosts - {*SERVICES, "127.0.0.1"} == set()


@pytest.mark.parametrize("name", OURS)
def test_our_commands_are_ones_that_the_command_line_takes(name: str) -> None:
    command, args = leaf_command(main, SERVICES[name]["command"])
    context = command.make_context(name, args)
    assert context.params["database"] == COMPOSE["x-database"]


def test_the_relay_makes_its_stream() -> None:
    command, args = leaf_command(main, SERVICES["publisher"]["command"])
    assert command.make_context("publish", args).params["sink"] == "nats://nats:4222?stream=EVENTS"


def test_prometheus_scrapes_where_the_publisher_listens() -> None:
    command, args = leaf_command(main, SERVICES["publisher"]["command"])
    listen = command.make_context("publish", args).params["listen"]
    assert (listen.host, listen.port) == ("0.0.0.0", 9464)
    (job,) = PROMETHEUS["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"publisher:{listen.port}"]}]
    assert "metrics_path" not in job, "the default is the path that we serve"
    (rules,) = PROMETHEUS["rule_files"]
    assert (ROOT / "observability" / "prometheus" / rules).is_file()


def test_jaeger_is_where_the_demo_says(capsys: pytest.CaptureFixture[str]) -> None:
    span = SpanView("7", "8", None, "outbox.write", "INTERNAL", 1, 2)
    show_page(Console(width=200), "http://localhost:4318", [span], [])
    assert "http://localhost:16686/trace/" in capsys.readouterr().out
    assert "127.0.0.1:16686:16686" in SERVICES["jaeger"]["ports"]


def test_what_is_mounted_is_there_and_read_only() -> None:
    mounts = [v.split(":") for s in SERVICES.values() for v in s.get("volumes", [])]
    assert len(mounts) == 3
    assert [source for source, _, _ in mounts if not (ROOT / source).is_dir()] == []
    assert {mode for _, _, mode in mounts} == {"ro"}


def test_grafana_is_provisioned_with_what_runs_here() -> None:
    folder = ROOT / "observability" / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "datasources.yml").read_text())
    urls = {source["type"]: source["url"] for source in sources["datasources"]}
    assert urls == {"prometheus": "http://prometheus:9090", "jaeger": "http://jaeger:16686"}
    (provider,) = yaml.safe_load((folder / "dashboards" / "dashboards.yml").read_text())[
        "providers"
    ]
    targets = {v.split(":")[1] for v in SERVICES["grafana"]["volumes"]}
    assert targets == {"/etc/grafana/provisioning", provider["options"]["path"]}


def test_our_environment_names_are_ones_that_are_read() -> None:
    names = {name for ours in OURS for name in SERVICES[ours].get("environment", {})}
    assert names == {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}
    assert names <= set(otel_environment._names("TRACES", "ENDPOINT"))


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sources = copied_from_the_checkout()
    assert len(sources) > 5
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if f"!{source}" not in ignored] == []


def test_the_image_installs_every_extra_but_the_embedded_servers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installs = re.findall(r"^RUN uv sync (.+)$", DOCKERFILE, re.MULTILINE)
    (without,) = re.findall(r'^ARG EXTRAS="--all-extras (.+)"$', DOCKERFILE, re.MULTILINE)
    for_programs = {"django", "fastapi", "lambda", "sqlalchemy", "starlette"}
    left_out = {"all", "demo", "embedded"} | for_programs
    assert left_out < set(project["optional-dependencies"])
    assert without.split() == [word for name in sorted(left_out) for word in ("--no-extra", name)]
    assert len(installs) == 2
    assert all(install.endswith(" $EXTRAS") for install in installs)
    assert all("--frozen" in install and "--no-dev" in install for install in installs)


def test_the_image_runs_our_command_as_an_ordinary_user() -> None:
    final = DOCKERFILE.rpartition("FROM ")[2]
    assert re.search(r"^USER (?!root|0)\w+$", final, re.MULTILINE)
    assert 'ENTRYPOINT ["/app/.venv/bin/dsql-outbox"]' in final
