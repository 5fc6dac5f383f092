"""The pydantic 2 schemas of the library's types. Imported only when pydantic asks for one."""

import inspect
from typing import Any

import msgspec
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


def schema_of_struct(kind: type[msgspec.Struct], handler: GetCoreSchemaHandler) -> CoreSchema:
    """Return the schema of a struct: an object of JSON that has its fields by their JSON names."""
    fields = msgspec.structs.fields(kind)

    def encode(struct: msgspec.Struct) -> dict[str, Any]:
        return {field.encode_name: getattr(struct, field.name) for field in fields}

    def build(wire: dict[str, Any]) -> msgspec.Struct:
        return kind(**{field.name: wire[field.encode_name] for field in fields})

    wire = core_schema.typed_dict_schema(
        {
            field.encode_name: core_schema.typed_dict_field(handler.generate_schema(field.type))
            for field in fields
        },
        metadata=_description(kind),
    )
    built = core_schema.no_info_after_validator_function(build, wire)
    return core_schema.json_or_python_schema(
        json_schema=built,
        python_schema=core_schema.union_schema([core_schema.is_instance_schema(kind), built]),
        serialization=core_schema.plain_serializer_function_ser_schema(encode, return_schema=wire),
        ref=_reference(kind),
    )


def schema_of_error(kind: type[Exception]) -> CoreSchema:
    """Return the schema of an error: problem details (RFC 9457) with further members."""
    text = core_schema.typed_dict_field(core_schema.str_schema())
    problem = core_schema.typed_dict_schema(
        {"type": text, "title": text, "detail": text},
        extra_behavior="allow",
        metadata=_description(kind),
    )
    return core_schema.is_instance_schema(
        kind,
        serialization=core_schema.plain_serializer_function_ser_schema(
            lambda error: error.to_dict(), return_schema=problem
        ),
        ref=_reference(kind),
    )


def _description(kind: type) -> dict[str, Any]:
    """Return the JSON Schema's title and description of a class."""
    first = (inspect.getdoc(kind) or "").partition("\n\n")[0]
    described = {"title": kind.__name__, "description": " ".join(first.split())}
    return {"pydantic_js_updates": described}


def _reference(kind: type) -> str:
    """Return the name of a schema that pydantic defines once, such as an OpenAPI component."""
    return f"{kind.__module__}.{kind.__qualname__}:{id(kind)}"
