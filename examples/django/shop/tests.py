import json
from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any
from uuid import uuid4

from django.db import connection, transaction
from django.test import Client, TestCase, TransactionTestCase

from dsql_outbox.django import captured_events

from .models import Order, Product
from .orders import stock


def post(client: Client, path: str, given: dict[str, Any]) -> Any:
    return client.post(path, json.dumps(given), content_type="application/json")


class StockTest(TestCase):
    """`append` works in the transaction of a TestCase."""

    def test_a_product_is_stocked_with_its_event(self) -> None:
        with captured_events() as events:
            assert post(self.client, "/products/", {"name": "book", "stock": 3}).status_code == 201
        assert Product.objects.get(name="book").stock == 3
        assert [event.entities[0].id for event in events] == ["book"]


class OrderTest(TransactionTestCase):
    """`transact` begins and commits, which a TestCase forbids."""

    def setUp(self) -> None:
        with transaction.atomic():
            stock("book", 3)

    def order(self, quantity: int = 1) -> dict[str, Any]:
        return {"id": str(uuid4()), "product": "book", "quantity": quantity}

    def test_an_order_that_comes_twice_is_placed_once(self) -> None:
        order = self.order()
        with captured_events() as events:
            answers = [post(self.client, "/orders/", order).status_code for _ in range(2)]
        assert answers == [201, 201]
        assert post(self.client, "/orders/", order | {"quantity": 2}).status_code == 409
        assert (Product.objects.get().stock, Order.objects.count(), len(events)) == (2, 1, 1)

    def test_an_order_of_more_than_the_stock_leaves_nothing(self) -> None:
        with captured_events() as events:
            assert post(self.client, "/orders/", self.order(4)).status_code == 409
        assert (Product.objects.get().stock, Order.objects.count(), events) == (3, 0, [])

    def test_orders_at_the_same_time_take_from_the_stock_one_by_one(self) -> None:
        barrier, answers = Barrier(5), []

        def send() -> None:
            barrier.wait()
            answers.append(post(Client(), "/orders/", self.order()).status_code)
            connection.close()

        _all(5, send)
        assert sorted(answers) == [201, 201, 201, 409, 409]
        assert (Product.objects.get().stock, Order.objects.count()) == (0, 3)


def _all(times: int, function: Callable[[], None]) -> None:
    threads = [Thread(target=function) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
