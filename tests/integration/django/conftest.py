"""A Django project on the database of a test."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import django.db
import pytest
from django.apps import apps
from django.test import override_settings
from tests.support.writer.checked_tables import Tables
from tests.support.writer.django_connections import set_up_django, use_database

from dsql_outbox.django import settings as django_settings

set_up_django()  # before a test imports a model

QUICK = {"timeout": 20.0}


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The setting DSQL_OUTBOX, with quick retries."""
    monkeypatch.setattr(
        django_settings, "UNKEPT", replace(django_settings.UNKEPT, base=0.002, cap=0.05)
    )
    given: dict[str, Any] = {"WRITER": QUICK}
    with override_settings(DSQL_OUTBOX=given):
        yield given


@pytest.fixture
def shop(tables: Tables, url: str) -> Iterator[Tables]:
    """The tables of a project with outbox tables and orders."""
    use_database(url)
    tables.execute("DROP TABLE IF EXISTS django_shop_order")
    with django.db.connection.schema_editor() as editor:
        editor.create_model(apps.get_model("django_shop", "Order"))
    yield tables
    use_database(url)
    django.db.connections.close_all()
    tables.execute("DROP TABLE django_shop_order")
