"""A topic of Kafka as its consumers know it: key, headers, deletions, and Avro of a registry.

A payload is a zero byte, the id of the schema in four bytes, and the record. So consumers need a
deserializer of the registry's clients, and nothing of dsql-outbox.
"""

import json
import os
import struct
from io import BytesIO

import fastavro
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from dsql_outbox import TOMBSTONE, Message, WireForm

TOPIC = "prod.orders"
SUBJECT = f"{TOPIC}-value"  # as the registry's clients name it after the topic

ORDER = {
    "type": "record",
    "name": "OrderPlaced",
    "namespace": "shop",
    "fields": [
        {"name": "order_id", "type": "string"},
        {"name": "total", "type": "string"},
    ],
}


class OrderAvro:
    """The map. It asks the registry once, before the publisher relays anything."""

    def __init__(self) -> None:
        self._schema = fastavro.parse_schema(ORDER)
        self._schema_id = 0

    def open(self) -> None:
        """Register the schema, or find its id."""
        with SchemaRegistryClient({"url": os.environ["SCHEMA_REGISTRY_URL"]}) as registry:
            schema = Schema(json.dumps(ORDER), "AVRO")
            self._schema_id = registry.register_schema(SUBJECT, schema)

    def __call__(self, message: Message) -> WireForm | None:
        (order, *_) = json.loads(message.payload)["entities"]
        headers = {"__TypeId__": "shop.OrderPlaced", "correlation-id": str(message.event_id)}
        if message.headers["type"] == "OrderCancelled":
            return WireForm(TOMBSTONE, headers=headers, key=order["id"], topic=TOPIC)
        if message.headers["type"] != "OrderPlaced":
            return None
        record = BytesIO()
        record.write(struct.pack(">bI", 0, self._schema_id))
        fastavro.schemaless_writer(
            record, self._schema, {"order_id": order["id"], "total": order["total"]}
        )
        payload = record.getvalue()
        return WireForm(payload, "application/avro", headers, key=order["id"], topic=TOPIC)


to_avro = OrderAvro()
