"""The base of results for callers: it converts to values of JSON, and pydantic knows it."""

from collections.abc import Iterator
from typing import Any

import msgspec


class JsonStruct(msgspec.Struct, frozen=True, rename="camel"):
    """A struct that can be the answer of a web framework.

    pydantic 2, and so FastAPI, takes it as the type of a response or of a field.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by their JSON names, as values that `json.dumps` accepts."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield the items of `to_dict`: FastAPI encodes an object of an unknown type by `dict`."""
        return iter(self.to_dict().items())

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: Any) -> Any:
        """Return the schema of this class. Called by pydantic, so pydantic is installed."""
        from .pydantic_schema import schema_of_struct  # noqa: PLC0415 - pydantic is optional

        return schema_of_struct(cls, handler)
