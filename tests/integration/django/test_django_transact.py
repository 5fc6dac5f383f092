"""`append` and `transact` in a Django project, as docs/django.md shows them."""

import copy
import pickle
import re
import threading
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import django.db
import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DataError, IntegrityError, OperationalError, connection, transaction
from django.db.models import signals
from django.test import Client, TestCase, override_settings
from django.test.utils import CaptureQueriesContext
from tests.support.checkout import ROOT
from tests.support.database_roles import as_role
from tests.support.django_shop.models import Order, Product
from tests.support.django_shop.orders import place
from tests.support.proxy.postgres_proxy import OutboxProxy
from tests.support.waiting import wait_until
from tests.support.writer import workload_s
from tests.support.writer.checked_tables import Tables
from tests.support.writer.django_connections import OTHER, use_database
from tests.support.writer.transacts import ids

from dsql_outbox import (
    Database,
    MissingRight,
    Receipt,
    SettingsError,
    StaleVersion,
    TransactionMisused,
    Writer,
)
from dsql_outbox.django import append, captured_events, transact, writer
from dsql_outbox.schema.roles import Roles

pytestmark = pytest.mark.client


def items(shop: Tables) -> list[str]:
    """The stored orders."""
    rows = shop.execute("SELECT item FROM django_shop_order ORDER BY item")
    return [row["item"] for row in rows]


def assert_left_clean() -> None:
    """Django's connection is as it was: the next block commits."""
    assert not connection.in_atomic_block
    assert connection.run_on_commit == []
    assert connection.execute_wrappers == []
    place_twice = Order.objects.filter(item="after")
    with transaction.atomic():
        Order.objects.create(item="after")
    assert connection.get_autocommit()
    place_twice.delete()


def test_a_row_and_its_event_are_stored_together_and_hooks_run_after_them(shop: Tables) -> None:
    seen: list[int] = []

    def run() -> Any:
        transaction.on_commit(lambda: seen.append(len(items(shop))))
        return place()

    order = transact(run)
    assert (items(shop), len(ids(shop)), seen) == ([order.item], 1, [1])
    assert_left_clean()


@pytest.mark.parametrize("commit", [True, False])
def test_append_is_part_of_a_block_of_atomic(shop: Tables, *, commit: bool) -> None:
    with transaction.atomic():
        place()
        transaction.set_rollback(not commit)
    assert (items(shop), len(ids(shop))) == ((["book"], 1) if commit else ([], 0))


def test_a_run_that_met_a_conflict_leaves_nothing_and_runs_again(shop: Tables, url: str) -> None:
    runs, hooks = [], []

    def run() -> Receipt:
        runs.append(1)
        transaction.on_commit(lambda: hooks.append(len(runs)))
        order = Order.objects.create(item="book")
        event = workload_s.car_created(str(order.pk))
        return writer().append_to(django.db.connection, event)  # as `append` does

    with OutboxProxy(url) as proxy:
        use_database(proxy.url)
        transact(lambda: None)  # a writer's first call tries the form of a write
        proxy.conflicts(2)
        receipt = transact(run)
        assert_left_clean()
    assert (len(runs), hooks, receipt.attempts) == (3, [3], 3)
    assert (items(shop), ids(shop)) == (["book"], {receipt.event_id})


def test_a_commit_that_was_lost_is_found_and_its_hooks_run(shop: Tables, url: str) -> None:
    runs, hooks = [], []

    def run() -> str:
        runs.append(1)
        transaction.on_commit(lambda: hooks.append(1))
        return str(place().item)

    with OutboxProxy(url) as proxy:
        use_database(proxy.url)
        proxy.cut("after_commit", matching="COMMIT")
        assert transact(run) == "book"
        assert_left_clean()
    assert (runs, hooks, items(shop), len(ids(shop))) == ([1], [1], ["book"], 1)


def test_a_connection_that_is_lost_in_a_run_is_replaced(shop: Tables) -> None:
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        place()
        if len(runs) == 1:
            shop.hang_up_all()
        place("second")

    transact(run)
    assert (len(runs), items(shop), len(ids(shop))) == (2, ["book", "second"], 2)
    assert_left_clean()


def test_the_writer_keeps_no_connection_beside_djangos(shop: Tables) -> None:
    transact(place)
    wait_until(lambda: shop.others() == 1)
    connection.close()
    wait_until(lambda: shop.others() == 0)  # or Django could not drop a test database


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: connection.cursor().execute("COMMIT"), "has ended the transaction itself"),
        (lambda: transaction.set_rollback(True), "has marked its transaction for a rollback"),
        (lambda: connection.close(), "has closed the connection"),  # noqa: PLW0108 - of a thread
        (lambda: transact(place), "inside transact|a block of atomic is open"),
    ],
    ids=["COMMIT", "set_rollback", "close", "nested"],
)
def test_a_function_that_ends_its_transaction_is_refused(
    shop: Tables, function: Callable[[], Any], message: str
) -> None:
    def run() -> None:
        Order.objects.create(item="undone")
        function()

    with pytest.raises(TransactionMisused, match=message):
        transact(run)
    assert items(shop) == []
    assert_left_clean()


def test_what_the_driver_commits_is_stored_and_the_call_fails(shop: Tables) -> None:
    def run() -> None:
        Order.objects.create(item="stored")
        connection.connection.execute("COMMIT")

    with pytest.raises(TransactionMisused, match="has ended the transaction itself"):
        transact(run)
    assert (items(shop), ids(shop)) == (["stored"], set())
    assert_left_clean()


@pytest.mark.parametrize("act", ["save", "delete", "raised outside"])
def test_an_instance_from_outside_is_refused(shop: Tables, act: str) -> None:
    order = Order.objects.create(item="book")

    def run() -> None:
        place("other")
        if act == "raised outside":
            Order(item="third").save()
            order.amount += 1
            try:
                order.save()
            except TransactionMisused:
                return
        getattr(order, act)()

    with pytest.raises(TransactionMisused, match=r"instance of Order.*make or load the Order"):
        transact(run)
    assert (items(shop), ids(shop)) == (["book"], set())
    assert_left_clean()


def test_after_a_transact_a_query_deletes_its_rows_without_loading_them(shop: Tables) -> None:
    transact(place)
    Order.objects.bulk_create(Order(item=str(n)) for n in range(300))
    with CaptureQueriesContext(connection) as queries:
        Order.objects.filter(item__lt="9").delete()
    assert [query["sql"].split()[0] for query in queries] == ["BEGIN", "DELETE", "COMMIT"]
    assert "book" in items(shop)


def test_an_instance_of_the_function_is_deleted_with_its_signals(shop: Tables) -> None:
    Order.objects.create(item="book")
    deleted: list[str] = []

    def note(instance: Order, **_: object) -> None:
        deleted.append(instance.item)
        if instance.item == "kept":
            raise KeyError(instance.item)

    def run(item: str) -> None:
        Order.objects.update(item=item)
        Order.objects.get(item=item).delete()
        place("another")

    signals.pre_delete.connect(note, sender=Order)
    try:
        with pytest.raises(KeyError, match="kept"):
            transact(partial(run, "kept"))
        assert (items(shop), ids(shop)) == (["book"], set())
        transact(partial(run, "deleted"))
    finally:
        signals.pre_delete.disconnect(note, sender=Order)
    assert (items(shop), len(ids(shop)), deleted) == (["another"], 1, ["kept", "deleted"])


def test_a_hook_that_raises_does_so_after_the_commit_and_leaves_the_connection(
    shop: Tables,
) -> None:
    hooks: list[str] = []

    def fail() -> None:
        hooks.append(",".join(items(shop)))
        raise ZeroDivisionError

    def run() -> None:
        place()
        transaction.on_commit(fail)
        transaction.on_commit(lambda: hooks.append("after"))

    connection.ensure_connection()
    driver = connection.connection
    with pytest.raises(ZeroDivisionError):
        transact(run)
    assert (items(shop), len(ids(shop)), hooks) == (["book"], 1, ["book"])
    assert connection.connection is driver, "as Django keeps it"
    assert_left_clean()


def test_an_instance_of_the_function_may_be_copied_and_pickled_in_it(shop: Tables) -> None:
    def run() -> str:
        order = pickle.loads(pickle.dumps(copy.deepcopy(place())))
        order.item = "copied"
        order.save()
        return str(order.item)

    assert (transact(run), items(shop)) == ("copied", ["copied"])


def test_an_error_that_a_block_of_atomic_undoes_ends_nothing(shop: Tables) -> None:
    Order.objects.create(item="book")

    def run() -> None:
        try:
            with transaction.atomic():
                Order.objects.create(item="book")
        except IntegrityError:
            place("another")

    transact(run)
    assert (items(shop), len(ids(shop))) == (["another", "book"], 1)


def test_an_error_that_the_function_swallows_ends_the_call(shop: Tables) -> None:
    Order.objects.create(item="book")

    def run() -> None:
        place("another")
        try:
            Order.objects.create(item="book")
        except IntegrityError:
            return

    with pytest.raises(IntegrityError):
        transact(run)
    assert (items(shop), ids(shop)) == (["book"], set())
    assert_left_clean()


@pytest.mark.parametrize("server_side", [True, False])
def test_a_conflict_of_a_query_or_of_a_fetch_is_retried(shop: Tables, *, server_side: bool) -> None:
    shop.execute("DROP SEQUENCE IF EXISTS asked")
    shop.execute("CREATE SEQUENCE asked")
    shop.execute("""CREATE OR REPLACE FUNCTION once_refused() RETURNS int LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('asked') = 1 THEN RAISE EXCEPTION 'refused' USING ERRCODE = '40001'; END IF;
            RETURN 1;
        END $$""")
    Order.objects.create(item="book")
    runs: list[int] = []

    def run() -> list[Any]:
        runs.append(1)
        rows = Order.objects.extra(select={"asked": "once_refused()"})
        return list(rows.iterator(chunk_size=1) if server_side else rows)

    assert len(transact(run)) == 1
    assert len(runs) == 2
    assert_left_clean()


def test_an_error_of_the_database_is_one_of_django(shop: Tables) -> None:
    assert items(shop) == []
    with pytest.raises(DataError, match="division by zero"):
        transact(lambda: connection.cursor().execute("SELECT 1 / 0"))
    assert_left_clean()


def test_the_time_of_the_call_ends_a_statement(shop: Tables) -> None:
    def run() -> None:
        place()
        connection.cursor().execute("SELECT pg_sleep(60)")

    with pytest.raises(OperationalError, match="deadline"):
        transact(run, timeout=0.3)
    shop.hang_up_all()  # the server still sleeps
    assert (items(shop), ids(shop)) == ([], set())
    assert_left_clean()


def test_errors_of_append_and_of_the_function_are_raised_as_they_are(shop: Tables) -> None:
    def stale() -> None:
        place()
        append(workload_s.car_created(), expected_version=7)

    with pytest.raises(StaleVersion):
        transact(stale)
    with pytest.raises(ZeroDivisionError):
        transact(lambda: place() and 1 / 0)
    with pytest.raises(TypeError, match="generator"):
        transact(lambda: (place(item) for item in "ab"))
    with pytest.raises(TypeError, match="takes a function"):
        transact("place")  # type: ignore[call-overload]
    assert (items(shop), ids(shop)) == ([], set())
    assert_left_clean()


def test_threads_append_to_their_own_runs(shop: Tables) -> None:
    both_inside = threading.Barrier(2, timeout=20)

    def call(item: str) -> Receipt:
        def run() -> Receipt:
            both_inside.wait()
            receipt = writer().append_to(django.db.connection, workload_s.car_created(item))
            both_inside.wait()
            if item == "lost":
                raise KeyError(item)
            return receipt

        try:
            return transact(run)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        kept, lost = pool.submit(call, "kept"), pool.submit(call, "lost")
        with pytest.raises(KeyError):
            lost.result(timeout=30)
        receipt = kept.result(timeout=30)
    assert ids(shop) == {receipt.event_id}


def test_append_outside_of_atomic_is_refused(shop: Tables) -> None:
    with pytest.raises(TransactionMisused, match="outside of atomic"):
        append(workload_s.car_created())
    assert ids(shop) == set()


@pytest.mark.parametrize("wrong", ["settings", "alias"])
def test_after_an_error_of_the_settings_the_block_is_rolled_back_without_its_hooks(
    shop: Tables, settings: dict[str, Any], wrong: str
) -> None:
    hooks: list[int] = []
    using = OTHER if wrong == "alias" else "default"
    given = settings if wrong == "alias" else {**settings, "UNKNOWN": 1}
    with override_settings(DSQL_OUTBOX=given), transaction.atomic(using=using):
        Order.objects.using(using).create(item="torn")
        transaction.on_commit(lambda: hooks.append(1), using=using)
        with pytest.raises(SettingsError):
            append(workload_s.car_created(), using=using)
    assert (items(shop), ids(shop), hooks) == ([], set(), [])


def test_an_error_of_the_settings_that_a_run_swallows_ends_the_call(
    shop: Tables, settings: dict[str, Any]
) -> None:
    def run() -> None:
        Order.objects.create(item="torn")
        with override_settings(DSQL_OUTBOX={**settings, "UNKNOWN": 1}), suppress(SettingsError):
            append(workload_s.car_created())

    with pytest.raises(SettingsError, match="no setting UNKNOWN"):
        transact(run)
    assert (items(shop), ids(shop)) == ([], set())
    assert_left_clean()


def test_each_database_of_the_setting_takes_events(shop: Tables, settings: dict[str, Any]) -> None:
    with transaction.atomic(using=OTHER), pytest.raises(SettingsError, match="has no outbox"):
        append(workload_s.car_created(), using=OTHER)
    with override_settings(DSQL_OUTBOX={**settings, "DATABASES": ["default", OTHER]}):
        transact(partial(place, "first"))
        transact(partial(place, "second", OTHER), using=OTHER)
        with transaction.atomic(using=OTHER):
            place("third", OTHER)
    assert (items(shop), len(ids(shop))) == (["first", "second", "third"], 3)


@pytest.mark.anyio
async def test_asynchronous_code_calls_it_in_a_thread(shop: Tables) -> None:
    from asgiref.sync import sync_to_async  # noqa: PLC0415 - Django brings it

    with pytest.raises(SynchronousOnlyOperation):
        transact(place)

    def call() -> None:
        transact(place)
        connection.close()

    await sync_to_async(call)()
    assert (items(shop), len(ids(shop))) == (["book"], 1)


def test_requests_of_an_atomic_project_append_and_only_exempt_ones_transact(shop: Tables) -> None:
    client = Client(headers={"host": "localhost"})
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert client.get("/atomic/").content == b"book"
        shop.execute("DELETE FROM django_shop_order")
        with pytest.raises(TransactionMisused, match=r"ATOMIC_REQUESTS.*non_atomic_requests"):
            client.get("/transact/")
        assert items(shop) == []
        assert client.get("/exempt/").content == b"book"
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert (items(shop), len(ids(shop))) == (["book"], 2)


def test_a_test_case_sees_what_append_has_written(shop: Tables) -> None:
    class Wrapped(TestCase):
        def test_append(self) -> None:
            with captured_events() as events, transaction.atomic():
                place()
            with captured_events() as undone, transaction.atomic():
                place("undone")
                transaction.set_rollback(True)
            assert [event.header.event_type for event in events] == ["OrderPlaced"]  # type: ignore[union-attr]
            assert undone == []

        def test_transact(self) -> None:
            with pytest.raises(TransactionMisused, match="TransactionTestCase"):
                transact(place)

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Wrapped).run(result)
    assert (result.testsRun, result.errors, result.failures) == (2, [], [])
    assert (items(shop), ids(shop)) == ([], set())


def test_the_code_of_the_page_stores_events(shop: Tables) -> None:
    page = (ROOT / "docs" / "django.md").read_text(encoding="utf-8")
    atomic, retried = re.findall(r"(?ms)^```python\n(from d.*?)^```$", page)[:2]
    with connection.schema_editor() as editor:
        editor.create_model(Product)
    try:
        Product.objects.create(name="book", stock=3)
        names: dict[str, Any] = {"Order": Order, "Product": Product}
        exec(atomic, names)
        exec(retried, names)
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Product)
    assert (items(shop), names["left"], len(ids(shop))) == (["book"], 2, 2)


def test_transact_has_the_round_trips_of_atomic(shop: Tables, url: str) -> None:
    with OutboxProxy(url) as proxy:
        use_database(proxy.url)
        transact(place)
        shop.execute("DELETE FROM django_shop_order")
        proxy.reset_counts()
        transact(place)
        retried = proxy.round_trips
        shop.execute("DELETE FROM django_shop_order")
        proxy.reset_counts()
        with transaction.atomic():
            place()
        assert retried <= proxy.round_trips


def test_a_right_that_the_role_of_django_lacks_is_told_with_the_grant(
    shop: Tables, url: str, roles: Roles
) -> None:
    shop.execute(f'REVOKE INSERT ON outbox.outbox FROM "{roles.writer}"')
    use_database(as_role(url, roles.writer))
    grant = f"table outbox: .* `dsql-outbox schema grant --writer {roles.writer}`"
    with (
        Writer(Database(url)) as other,
        pytest.raises(MissingRight, match=grant),
        transaction.atomic(),
    ):
        other.append_to(connection, workload_s.car_created())


def test_a_right_that_the_end_of_transact_needs_is_told_with_the_grant(
    shop: Tables, url: str, roles: Roles
) -> None:
    shop.execute(f'REVOKE SELECT ON outbox.business_events FROM "{roles.writer}"')
    use_database(as_role(url, roles.writer))
    grant = f"table business_events: .* `dsql-outbox schema grant --writer {roles.writer}`"
    with pytest.raises(MissingRight, match=grant):
        transact(lambda: append(workload_s.car_created()))
    assert ids(shop) == set()
