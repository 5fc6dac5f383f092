"""Archive files in Amazon S3, or in a server with its API."""

import re
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Any, Final
from urllib.parse import parse_qsl

from dsql_outbox.outbox.errors import ArchiveError, MissingExtra, SettingsError

from .file_rules import require_name, require_size

_URL: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([^?#]*))?(?:\?([^#]*))?")
_FORM: Final = "an archive in S3 is s3://BUCKET/PREFIX[?region=REGION&endpoint=URL]"


def open_s3(name: str, *, is_recorded: bool) -> "S3Place":
    """The place with a name. Raises `SettingsError` for a malformed one, and `MissingExtra`.

    Requests are signed and have the session's token, so the row of a name that `is_recorded` must
    not choose the server that gets them.
    """
    found = _URL.fullmatch(name)
    options = dict(parse_qsl(found[3] or "")) if found else {}
    if found is None or set(options) - {"region", "endpoint"}:
        raise SettingsError(f"{_FORM}; credentials are the AWS SDK's")
    if is_recorded and "endpoint" in options:
        raise SettingsError("a row must not choose an endpoint")
    try:
        import boto3  # type: ignore[import-untyped] # noqa: PLC0415 - slow, and an extra
        import botocore.config  # type: ignore[import-untyped] # noqa: PLC0415 - the same
        import botocore.exceptions  # type: ignore[import-untyped] # noqa: PLC0415 - the same
    except ImportError:
        raise MissingExtra("s3", "an archive in S3") from None
    sdk: Any = boto3  # it creates its classes at run time, so there are no types
    config: Any = botocore.config.Config(retries={"mode": "standard"}, connect_timeout=10)
    place = {"region_name": options.get("region"), "endpoint_url": options.get("endpoint")}
    try:
        client: Any = sdk.session.Session().client("s3", config=config, **place)
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        raise SettingsError(f"{name}: {error}") from error
    prefix = (found[2] or "").strip("/")
    return S3Place(name, client, found[1], f"{prefix}/" if prefix else "")


class S3Place:
    """Objects of a bucket whose keys begin with a prefix. S3 writes an object as a whole."""

    def __init__(self, name: str, client: Any, bucket: str, prefix: str) -> None:
        self._name = name
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    @property
    def name(self) -> str:
        """The URL."""
        return self._name

    def read(self, file: str, most: int, /) -> bytes:
        """The bytes of an object."""
        with self._archive_errors(file):
            found: Any = self._client.get_object(**self._object(file))
            with closing(found["Body"]) as body:
                require_size(file, self.name, found["ContentLength"], most)
                data: bytes = body.read()
            return data

    def write(self, file: str, data: bytes, /) -> None:
        """Write an object; S3 compares its checksum."""
        with self._archive_errors(file):
            self._client.put_object(**self._object(file), Body=data, ChecksumAlgorithm="SHA256")

    def remove(self, file: str, /) -> None:
        """Remove an object. A bucket with versions keeps the old ones, by rules of its own."""
        with self._archive_errors(file):
            self._client.delete_object(**self._object(file))

    def exists(self, file: str, /) -> bool:
        """Whether an object exists."""
        with self._archive_errors(file):
            found = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix + file, MaxKeys=1
            )
            return any(each["Key"] == self._prefix + file for each in found.get("Contents", ()))

    def _object(self, file: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + file}

    @contextmanager
    def _archive_errors(self, file: str) -> Generator[None]:
        """Refuse the name of another object, and raise the SDK's errors as `ArchiveError`."""
        require_name(file, self.name)
        from botocore.exceptions import (  # pyright: ignore[reportMissingTypeStubs] # noqa: PLC0415 - an extra
            BotoCoreError,
            ClientError,
        )

        try:
            yield
        except ClientError as error:
            answer: Any = error.response
            told = answer.get("Error", {}).get("Code", "an error")
            raise ArchiveError(file, self.name, f"S3 answers {told}") from error
        except BotoCoreError as error:
            raise ArchiveError(file, self.name, type(error).__name__) from error
