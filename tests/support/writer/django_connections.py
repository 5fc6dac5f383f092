"""Django's connection to the database of a test."""

from collections.abc import Iterator
from typing import Any

import django
import django.db
import pytest
from django.conf import settings
from django.db.utils import ConnectionHandler
from psycopg.conninfo import conninfo_to_dict


@pytest.fixture
def django_connection(url: str) -> Iterator[Any]:
    """``django.db.connection``."""
    database = _configured(url)  # first: before that Django has no connection
    # Django reads its settings once, and another test of this process had another database.
    django.db.connection.settings_dict.update(database)
    yield django.db.connection
    django.db.connection.close()


def new_django_connection(url: str) -> Any:
    """A connection that Django's settings do not name."""
    return ConnectionHandler({"default": _configured(url)})["default"]


def _configured(url: str) -> dict[str, Any]:
    """The settings of the database of a URL. Django is set up, if it was not."""
    given = conninfo_to_dict(url)
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST"}
    database = {theirs: given.get(ours, "") for ours, theirs in names.items()}
    database |= {"ENGINE": "django.db.backends.postgresql", "PORT": given["port"]}
    if not settings.configured:
        settings.configure(DATABASES={"default": database})
        django.setup()
    return database
