"""The public API, and what importing it must not cost."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import dsql_outbox
from dsql_outbox.outbox import errors as errors_module

HEAVY = [
    *["boto3", "confluent_kafka", "nats", "opentelemetry.sdk", "pydantic", "rich"],
    *["sqlalchemy", "starlette"],
]


def modules_after(code: str) -> set[str]:
    """The names of all modules that a fresh interpreter has after `code`."""
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def test_importing_the_package_loads_nothing_but_itself() -> None:
    bare, after = modules_after("import importlib, typing"), modules_after("import dsql_outbox")
    assert after - bare == {"dsql_outbox"}


def test_a_writer_loads_nothing_of_the_relay_and_nothing_optional() -> None:
    after = modules_after("from dsql_outbox import AsyncWriter, Database, Event, Writer")
    assert "dsql_outbox.writer" in after
    assert "dsql_outbox.publisher" not in after
    assert after.intersection(HEAVY) == set()


def test_a_writer_loads_nothing_that_only_some_of_its_calls_use() -> None:
    """A function on AWS Lambda pays for each module before its first event."""
    after = modules_after("from dsql_outbox import Database, Event, Writer")
    after -= modules_after("import asyncio, psycopg")
    rooms = {".".join(name.split(".")[:3]) for name in after if name.startswith("dsql_outbox.")}
    seldom = {"dsql_outbox.schema.migrator"}
    seldom |= {f"dsql_outbox.schema.{name}" for name in ("session", "tables", "roles", "ownership")}
    assert rooms.intersection(seldom) == set()
    assert after.intersection({"opentelemetry.propagate", "secrets", "shlex", "getpass"}) == set()


def test_a_publisher_loads_nothing_optional() -> None:
    after = modules_after("from dsql_outbox import Publisher, open_sink")
    assert "dsql_outbox.publisher" in after
    assert after.intersection(HEAVY) == set()


def test_every_public_name_resolves() -> None:
    for name in dsql_outbox.__all__:
        value = getattr(dsql_outbox, name)
        assert getattr(value, "__name__", name) == name
        assert value.__module__.startswith("dsql_outbox.")
        assert vars(dsql_outbox)[name] is value, "it is looked up once only"


def test_every_error_class_is_public() -> None:
    errors = {
        name
        for name, value in vars(errors_module).items()
        if isinstance(value, type) and issubclass(value, errors_module.OutboxError)
    }
    assert len(errors) > 5
    assert errors - set(dsql_outbox.__all__) == set()


def test_the_public_names_are_listed_by_dir() -> None:
    assert set(dsql_outbox.__all__) <= set(dir(dsql_outbox))


def test_the_version_is_the_distributions() -> None:
    assert dsql_outbox.__version__ == version("dsql-outbox")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dsql_outbox' has no attribute 'Wirter'"):
        dsql_outbox.Wirter  # noqa: B018
