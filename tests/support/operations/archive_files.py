"""The files in a place of archives, as an operator would list them."""

from pathlib import Path
from typing import Any

from dsql_outbox.outbox.archive.place import open_place


def files(name: str) -> list[str]:
    """The names of all files in a folder, or of all objects under a prefix of S3."""
    if not name.startswith("s3://"):
        return [each.name for each in Path(name).iterdir()]
    place: Any = open_place(name)
    found = place._client.list_objects_v2(Bucket=place._bucket, Prefix=place._prefix)
    return [each["Key"].removeprefix(place._prefix) for each in found.get("Contents", ())]
