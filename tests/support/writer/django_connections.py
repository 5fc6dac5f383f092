"""Django's connection to the database of a test."""

from collections.abc import Iterator
from typing import Any

import django
import django.db
import pytest
from django.conf import settings
from django.db.utils import ConnectionHandler
from psycopg.conninfo import conninfo_to_dict

OTHER = "other"
"""Another alias, of the same database."""


@pytest.fixture
def django_connection(url: str) -> Iterator[Any]:
    """``django.db.connection``."""
    use_database(url)
    yield django.db.connection
    django.db.connections.close_all()


def set_up_django() -> None:
    """Set Django up, once in a process, with the databases of no test."""
    if settings.configured:
        return
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": "of no test"}
    settings.configure(
        DATABASES={"default": database, OTHER: {**database}},
        INSTALLED_APPS=["dsql_outbox.django", "tests.support.django_shop"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        ROOT_URLCONF="tests.support.django_shop.urls",
    )
    django.setup()


def use_database(url: str) -> None:
    """Lead both aliases to a database."""
    set_up_django()  # before that Django has no connection
    for alias in ("default", OTHER):
        django.db.connections[alias].close()
        django.db.connections[alias].settings_dict.update(_database(url))


def new_django_connection(url: str) -> Any:
    """A connection that Django's settings do not name."""
    set_up_django()
    return ConnectionHandler({"default": _database(url)})["default"]


def _database(url: str) -> dict[str, Any]:
    """The settings of the database of a URL."""
    given = conninfo_to_dict(url)
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST"}
    database = {theirs: given.get(ours, "") for ours, theirs in names.items()}
    return database | {"ENGINE": "django.db.backends.postgresql", "PORT": given["port"]}
