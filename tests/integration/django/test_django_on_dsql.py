"""The app on AWS's backend for Django and on Django's own, in front of the stand-in for DSQL.

Without the stand-in, AWS's backend runs on PostgreSQL.
"""

from collections.abc import Iterator
from typing import Any

import django.db
import pytest
from django.core.management import call_command
from django.db import NotSupportedError, connection, transaction
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.migrations.exceptions import MigrationSchemaMissing
from django.test import override_settings
from tests.support.django_shop.models import Order
from tests.support.django_shop.orders import place
from tests.support.dsql.server import ON_DSQL
from tests.support.dsql_django import base
from tests.support.writer import workload_s
from tests.support.writer.django_connections import use_database

from dsql_outbox import Database, Receipt, TransactionMisused, Writer
from dsql_outbox.django import append, transact
from dsql_outbox.django.databases import database_url as address_of
from dsql_outbox.schema.comparison import check

on_dsql_only = pytest.mark.skipif(not ON_DSQL, reason="PostgreSQL refuses nothing here")


@pytest.fixture
def aws(database_url: str) -> Iterator[Any]:
    """AWS's backend as the default alias, on an empty database."""
    yield from _default_alias(database_url, base.DatabaseWrapper)


@pytest.fixture
def djangos(database_url: str) -> Iterator[Any]:
    """Django's own backend, governed as the library's sessions are."""
    yield from _default_alias(database_url, DatabaseWrapper)


def _default_alias(url: str, backend: Any) -> Iterator[Any]:
    use_database(url)
    given = connection.settings_dict | {"OPTIONS": {"application_name": "dsql-outbox"}}
    found = backend(given, "default")
    vendor, backend.vendor = backend.vendor, "postgresql"  # the stand-in's address is none of AWS
    own = django.db.connections["default"]
    django.db.connections["default"] = found
    try:
        yield found
    finally:
        found.close()
        backend.vendor = vendor
        django.db.connections["default"] = own


def test_migrate_append_and_transact_work_on_the_backend_of_aws(
    aws: Any, database_url: str
) -> None:
    call_command("migrate", "outbox", verbosity=0)
    assert check(Database(database_url)) == []
    with aws.schema_editor() as editor:
        editor.create_model(Order)
    receipts: list[Receipt] = []

    def run() -> Receipt:
        order = Order.objects.create(item=f"book {len(receipts)}")
        receipts.append(append(workload_s.car_created()))
        if len(receipts) == 1 and ON_DSQL:
            with Writer(Database(database_url)) as rival:
                rival.write(workload_s.car_created())
        assert order.pk
        return receipts[-1]

    assert transact(run).attempts == (2 if ON_DSQL else 1)
    with transaction.atomic():
        place("in a block of its own")
    assert Order.objects.count() == 2


def test_a_nested_block_that_failed_ends_the_call_where_there_are_no_savepoints(aws: Any) -> None:
    call_command("migrate", "outbox", verbosity=0)
    with aws.schema_editor() as editor:
        editor.create_model(Order)

    def run() -> None:
        try:
            with transaction.atomic():
                place()
                raise KeyError
        except KeyError:
            return

    with pytest.raises(TransactionMisused, match="swallowed an exception of a block of atomic"):
        transact(run)
    assert Order.objects.count() == 0


@on_dsql_only
def test_the_apps_of_django_itself_do_not_migrate_on_the_backend_of_aws(aws: Any) -> None:
    del aws
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "dsql_outbox.django"]
    with override_settings(INSTALLED_APPS=apps), pytest.raises(NotSupportedError, match="ALTER"):
        call_command("migrate", verbosity=0)


@on_dsql_only
def test_schema_apply_works_where_djangos_own_backend_cannot_migrate(
    djangos: Any, database_url: str
) -> None:
    del djangos
    with pytest.raises(MigrationSchemaMissing, match="identity column"):
        call_command("migrate", "outbox", verbosity=0)
    call_command("outbox", "schema", "apply")
    assert check(Database(database_url)) == []
    # Once more on a session that is older than the tables (OC001).
    assert transact(lambda: append(workload_s.car_created())).status == "committed"


@pytest.mark.client
def test_the_address_of_the_backend_of_aws_is_that_of_a_cluster() -> None:
    given = {"HOST": "abc.dsql.eu-west-1.on.aws", "USER": "admin", "NAME": "postgres", "PORT": ""}
    use_database("postgresql://nobody@127.0.0.1:1/none")
    found = base.DatabaseWrapper(connection.settings_dict | given, "default")
    own = django.db.connections["default"]
    django.db.connections["default"] = found
    try:
        assert address_of("default") == "dsql://admin@abc.dsql.eu-west-1.on.aws/postgres"
    finally:
        django.db.connections["default"] = own
