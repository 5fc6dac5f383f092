"""What an installation brings: the packages of the core, and extras that are documented."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from tests.support.checkout import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    name: [Requirement(line) for line in lines]
    for name, lines in PROJECT["optional-dependencies"].items()
}
INSTALLED = re.compile(r"(?:\.|\./dsql-outbox|dsql-outbox)\[([a-z,]+)\]")
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
TEXTS = [
    path
    for pattern in ("*.md", "docs/*.md", "examples/*/*.md", "examples/deploy/*")
    for path in ROOT.glob(pattern)
    if path.is_file()
]

SINKS = PROJECT["entry-points"]["dsql_outbox.sinks"]
BROKERS = {
    module.removeprefix("dsql_outbox.brokers.")
    for module in (where.partition(":")[0] for where in SINKS.values())
    if module.startswith("dsql_outbox.brokers.")
}

LISTS_OF_BROKERS = (
    "CHANGELOG.md",
    "README.md",
    "docs/message.md",
    "docs/reference/sinks.md",
    "docs/sinks.md",
    "tests/support/brokers/running_broker.py",  # what the contract suite runs on
)


def reached(extra: str) -> Iterator[str]:
    """The extra, and those that it is made of."""
    yield extra
    for requirement in EXTRAS[extra]:
        if requirement.name == PROJECT["name"]:
            for part in requirement.extras:
                yield from reached(part)


def test_the_core_needs_four_packages_and_no_other() -> None:
    names = {f"{each.name}{sorted(each.extras) or ''}" for each in CORE}
    assert names == {"anyio", "msgspec", "opentelemetry-sdk", "psycopg['pool']"}


def test_a_package_is_given_a_version_once() -> None:
    versions = [
        each.name
        for requirements in (CORE, *EXTRAS.values())
        for each in requirements
        if each.specifier
    ]
    assert sorted(versions) == sorted(set(versions))
    named = {each.name for requirements in EXTRAS.values() for each in requirements}
    assert named - set(versions) == {PROJECT["name"]}


def test_all_is_every_extra_and_demo_is_what_the_demo_needs() -> None:
    assert set(reached("all")) == set(EXTRAS)
    assert set(reached("demo")) == {"demo", "binary", "cli", "embedded", "nats"}


def test_the_page_says_what_each_extra_is_for() -> None:
    page = (ROOT / "docs" / "start.md").read_text()
    table = page.partition("| extra | for |")[2].partition("\n\n")[0]
    first_column = "".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|"))
    assert [extra for extra in EXTRAS if f"`{extra}`" not in first_column] == []


def test_each_broker_has_an_extra_and_stands_in_each_list_of_brokers() -> None:
    """The entry points are the table of the brokers."""
    texts = {name: (ROOT / name).read_text() for name in LISTS_OF_BROKERS}
    texts["the description in pyproject.toml"] = PROJECT["description"]
    assert BROKERS
    assert BROKERS.issubset(EXTRAS)
    lacks = [
        f"{place} lacks {broker}"
        for place, text in texts.items()
        for broker in sorted(BROKERS)
        if broker not in text.lower()
    ]
    assert not lacks, "\n".join(lacks)  # pytest would cut the list short


def test_the_suite_for_all_sinks_is_collected_without_any_client() -> None:
    wanted = {each.name for broker in BROKERS for part in reached(broker) for each in EXTRAS[part]}
    wanted.remove(PROJECT["name"])
    clients = [name for name, owners in packages_distributions().items() if wanted & set(owners)]
    assert len(clients) >= len(wanted)
    without = f"import sys; sys.modules.update(dict.fromkeys({clients}))"
    program = f"{without}; import tests.contract.conftest, tests.contract.test_sinks"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("extra", ["starlette", "fastapi", "console", "all"])
def test_no_extra_admits_a_starlette_whose_files_cost_seconds_per_request(extra: str) -> None:
    """CVE-2025-62727: one request with 4,000 ranges on a static file takes 5 s."""
    floors = [
        each.specifier
        for part in reached(extra)
        for each in EXTRAS[part]
        if each.name == "starlette"
    ]
    assert floors
    assert not any(floor.contains("0.49.0") for floor in floors)


def test_install_commands_in_texts_name_extras_that_exist() -> None:
    found = {
        wanted
        for path in TEXTS
        for wanted in re.findall(r"pip install '([^']+)'", path.read_text())
    }
    assert len(found) > 2
    for wanted in found:
        named = INSTALLED.fullmatch(wanted)
        assert named is not None, wanted
        assert set(named[1].split(",")) <= set(EXTRAS), wanted
