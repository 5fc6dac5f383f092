"""Read the current state of one entity. No I/O."""

from collections.abc import Mapping, Sequence

from dsql_outbox.writer.core import Core
from dsql_outbox.writer.statement.answers import Row, StoredEntity

from .call_arguments import require_key
from .reading import Reading


class EntityReading(Reading):
    """The reading of one entity. `entity` is None if no event has touched it.

    Raises `TypeError` unless type and id are texts.
    """

    def __init__(self, core: Core, entity_type: str, entity_id: str) -> None:
        require_key(entity_type, entity_id)
        super().__init__(core)
        self.entity: StoredEntity | None = None
        self._key = (entity_type, entity_id)

    @property
    def query(self) -> tuple[bytes, Mapping[str, object]]:
        """The statement that reads the entity, and its parameters."""
        entity_type, entity_id = self._key
        return self._core.entity, {"entity_type": entity_type, "entity_id": entity_id}

    def take(self, rows: Sequence[Row]) -> None:
        """Take the entity, if it exists."""
        self.entity = next((StoredEntity(*self._key, *row) for row in rows), None)
