"""The outbox in a Django project: an app, a retried `atomic`, commands and migrations.

INSTALLED_APPS = [.., "dsql_outbox.django"]

with transaction.atomic():
    order = Order.objects.create(item="book")
    append(Event.new("OrderPlaced", [Entity("Order", str(order.pk), {"item": order.item})]))

`producer` has what a project calls, on the databases of `databases` and the settings of `settings`.
`instances` refuses model instances that a lost run may have changed. `checks` are the system
checks, `schema_operation` is what the migrations run, and `management/` has the command `outbox`.
"""

from importlib import import_module

from dsql_outbox.outbox.errors import MissingExtra

try:
    import_module("django")
except ModuleNotFoundError as error:
    raise MissingExtra("django", "dsql_outbox.django") from error

from .producer import append, transact, writer
from .testing import captured_events

__all__ = ["append", "captured_events", "transact", "writer"]
