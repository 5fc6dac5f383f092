"""The tables of release 0.1."""

from collections.abc import Sequence
from typing import ClassVar

from django.db import migrations
from django.db.migrations.operations.base import Operation

from dsql_outbox.django.schema_operation import ApplySchema


class Migration(migrations.Migration):
    """Each statement is a transaction of its own, as Aurora DSQL demands."""

    initial = True
    atomic = False
    dependencies: ClassVar[Sequence[tuple[str, str]]] = []
    operations: ClassVar[Sequence[Operation]] = [ApplySchema(version=20, is_first=True)]
