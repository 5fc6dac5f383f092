"""A client of the AWS SDK for one target, and the entries of its requests.

A client blocks, so call it in a worker thread. The SDK is an extra: the first client loads it.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from msgspec import structs

from dsql_outbox.outbox.errors import MissingExtra, SettingsError, SinkUnavailable
from dsql_outbox.outbox.message import Message
from dsql_outbox.outbox.redaction import error_text, known_text, system_error
from dsql_outbox.publisher.sinks.port import Delivered, Outcome, Rejected, Retry, Unavailable
from dsql_outbox.publisher.sinks.url import Parameters, read_parameters

_ENDPOINT: Final = re.compile(r"https?://[^\s/?#@]+/?")

REQUESTS: Final = 8
"""The most requests at the same time. Each needs a thread, because the AWS SDK blocks."""

MAX_ENTRIES: Final = 10
"""The limit of messages per request, which all three services have."""

_MESSAGES: Final = (
    "InvalidMessageContents",
    "BatchRequestTooLong",
    "InvalidParameterValue",
    "InvalidParameter",
    "ValidationException",
    "ValidationError",
)
"""Suffixes of error codes that blame the messages of a request."""

_TARGET: Final = (
    "NonExistentQueue", "QueueDoesNotExist", "NotFound",
    "AccessDenied", "AuthorizationError", "NotAuthorized", "InvalidAccountId",
    "Throttl", "KMS", "Kms",
)  # fmt: skip
"""Parts of error codes that blame the target, its key, or the rights and the rate of this client.

Other codes blame the service or the credentials. A service may report these ones for an
entry as the sender's fault, but the message is not at fault.
"""


_CODE: Final = re.compile(r"[A-Za-z0-9.:_-]{1,100}")
_ARN: Final = r"[\w:/.*@+=,-]{1,300}"
_SERVICE: Final = re.compile(
    r"does not exist|Rate exceeded|security token included in the request is (?:invalid|expired)"
    rf"|User: {_ARN} is not authorized to perform: [\w:]{{1,80}}(?: on resource: {_ARN})?"
    r"|Message must be shorter than \d+ bytes|Message too long"
)
"""The parts of the texts of AWS that quote nothing of a message."""
_CLIENT: Final = re.compile(
    r"(?:Could not connect to|(?:Read|Connect) timeout on) (?:the )?endpoint URL(?:: \"https?://[^/\"?@]+)?"
    r"|Unable to locate credentials|Partial credentials found"
    r"|Error when retrieving (?:credentials|token) from [\w-]{1,40}"
    r"|Connection was closed before we received a valid response"
)
"""The same of the SDK: the text of a parameter that it refuses quotes the parameter."""


class AwsAddress(Parameters, frozen=True, kw_only=True):
    """Where a service is, and how long a request may take: the parameters of a URL."""

    region: str | None = None
    """The AWS region; None if the SDK must find it."""
    endpoint: str | None = None
    """The URL of another server with the API of the service."""


def match_before_query(
    kind: str, form: str, place: re.Pattern[str], url: str
) -> tuple[re.Match[str], str]:
    """Match the part of a URL before its query; return the match and the query.

    Raises `SettingsError`, with the `form` that the URL should have.
    """
    found, _, query = url.partition("?")
    match = place.fullmatch(found)
    if match is None:
        raise SettingsError(f"{kind} is {form}; credentials are the AWS SDK's")
    return match, query


def parse_address(kind: str, query: str, region: str | None) -> AwsAddress:
    """Parse the query of a URL; `region` is the one that the rest of the URL names.

    Raises `SettingsError` for a malformed or an unknown parameter.
    """
    given = read_parameters(kind, query, AwsAddress)
    if given.endpoint is not None and not _ENDPOINT.fullmatch(given.endpoint):
        raise SettingsError(f"endpoint of {kind} is http://HOST[:PORT] or https://..")
    return structs.replace(given, region=given.region or region)


@dataclass(frozen=True, slots=True)
class Entry:
    """A message in the form that a service takes."""

    index: int
    """Which message of the call this is."""
    request: dict[str, Any]
    size: int
    """The bytes that count against the limits of the service."""


Answers = Iterator[tuple[int, Outcome]]
"""The outcomes of messages by their index in the call."""


class RequestRefused(Exception):
    """The service refused a whole request, because one of its messages breaks a rule."""


class TargetUnavailable(Exception):
    """The target takes no message of this client now."""


def cut(entries: Iterable[Entry], max_bytes: int) -> Iterator[list[Entry]]:
    """Cut entries into requests of at most `MAX_ENTRIES` and `max_bytes`, in the given order."""
    request: list[Entry] = []
    total = 0
    for entry in entries:
        if request and (len(request) == MAX_ENTRIES or total + entry.size > max_bytes):
            yield request
            request, total = [], 0
        request.append(entry)
        total += entry.size
    if request:
        yield request


def blames_target(code: str) -> bool:
    """Whether an error code is about the target, and neither about a message nor the service."""
    return any(part in code for part in _TARGET)


class BatchClient(ABC):
    """Sends requests to a queue, topic or bus; each takes the timeout of its address at most.

    Up to `REQUESTS` threads may use it at the same time. `name` is that of the target, and
    `target` names it in errors. Raises `MissingExtra` without the SDK.
    """

    api: ClassVar[str]
    """The name of the service in the SDK."""
    service: ClassVar[str]
    """The name of the service in errors."""
    system: ClassVar[str]
    """The name of the service in spans."""
    max_bytes: int
    """The limit for a message with its attributes, and for a request."""

    def __init__(self, target: str, name: str, address: AwsAddress) -> None:
        try:
            import boto3  # type: ignore[import-untyped] # noqa: PLC0415 - slow, and an extra
            import botocore.config  # type: ignore[import-untyped] # noqa: PLC0415
            import botocore.exceptions  # type: ignore[import-untyped] # noqa: PLC0415
        except ModuleNotFoundError as error:
            extra = self.service.lower()
            raise MissingExtra(extra, f"the sink {extra}://") from error
        # The SDK creates its classes at run time, so there are no types.
        self._sdk: Any = boto3
        self._make_config: Any = botocore.config.Config
        self._errors: Any = botocore.exceptions
        self.name = name
        self.address = address
        self._target = target
        self._client: Any = None

    @property
    def endpoint(self) -> str:
        """The URL of the service, once the client is open."""
        return str(self._client.meta.endpoint_url)

    def open(self) -> None:
        """Create the client, and ask the service for the target.

        Raises `SettingsError` if no region is known or a setting is invalid, and
        `SinkUnavailable` when the target does not exist or the service cannot be reached.
        """
        address = self.address
        config = self._make_config(
            # Half for the connection, half for the answer. The relay retries, not the SDK.
            connect_timeout=address.timeout / 2,
            read_timeout=address.timeout / 2,
            max_pool_connections=REQUESTS,
            retries={"total_max_attempts": 1},
            user_agent_extra="dsql-outbox",
        )
        place = {"region_name": address.region, "endpoint_url": address.endpoint}
        try:
            self._client = self._sdk.session.Session().client(self.api, config=config, **place)
            self._prepare()
        except self._errors.NoRegionError as error:
            raise SettingsError(
                f"{self._target}: the region is not known; add ?region=.."
            ) from error
        except (self._errors.InvalidRegionError, ValueError) as error:  # ValueError: the endpoint
            raise SettingsError(f"{self._target}: {error}") from error
        except (self._errors.BotoCoreError, self._errors.ClientError) as error:
            raise self._unavailable(error) from system_error(error)

    def send(self, entries: Sequence[Entry]) -> Answers:
        """Send a request and return the outcome of each entry.

        Raises `RequestRefused` if the service refuses the whole request because of a
        message, `TargetUnavailable` because of the target, and `SinkUnavailable` for
        any other failure.
        """
        try:
            return self._send(entries)
        except self._errors.ClientError as error:
            if error_code(error).endswith(_MESSAGES):
                raise RequestRefused(self._text(error)) from None
            if blames_target(error_code(error)):
                raise TargetUnavailable(self._text(error)) from None
            raise self._unavailable(error) from None
        except self._errors.BotoCoreError as error:
            raise self._unavailable(error) from system_error(error)

    def ask(self) -> None:
        """Ask the service for the target. Raises `SinkUnavailable` if it cannot be reached."""
        try:
            self._find()
        except self._errors.ClientError as error:
            if not self._is_answer(error_code(error)):
                raise self._unavailable(error) from None
        except self._errors.BotoCoreError as error:
            raise self._unavailable(error) from system_error(error)

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def _prepare(self) -> None:
        """Learn what requests need to know of the target."""
        self._find()

    def _is_answer(self, code: str) -> bool:
        """Whether an error of `_find` is an answer: about the target, or a missing right to ask."""
        return blames_target(code)

    @abstractmethod
    def entry(self, index: int, message: Message) -> Entry | Rejected:
        """The entry of the message with this index, or why the service would not take it as is."""

    @abstractmethod
    def _find(self) -> Any:
        """Ask the service for the target, and return its answer."""

    @abstractmethod
    def _send(self, entries: Sequence[Entry]) -> Answers:
        """Send a request and return the outcome of each entry."""

    def _unavailable(self, error: Any) -> SinkUnavailable:
        return SinkUnavailable(f"{self._target} cannot be used: {self._text(error)}")

    def _text(self, error: Any) -> str:
        if isinstance(error, self._errors.ClientError):
            return _refusal(error.response["Error"].get("Message"), error_code(error))
        return error_text(error, _CLIENT)


def answers_by_id(service: str, response: dict[str, Any]) -> Answers:
    """The outcomes in a response of SQS or SNS, which names entries by their id."""
    for stored in response.get("Successful", ()):
        yield int(stored["Id"]), Delivered()
    for failed in response.get("Failed", ()):
        yield int(failed["Id"]), _failure(service, failed)


def refusal(service: str, message: str | None, code: str) -> str:
    """The text of an outcome that the service refused."""
    return f"refused by {service}: {_refusal(message, code)}"


def _failure(service: str, failed: dict[str, Any]) -> Outcome:
    text = refusal(service, failed.get("Message"), failed["Code"])
    if blames_target(failed["Code"]):
        return Unavailable(text)
    return Rejected(text) if failed["SenderFault"] else Retry(text)


def error_code(error: Any) -> str:
    """The code of an error that the service answered."""
    return str(error.response["Error"].get("Code", ""))


def _refusal(message: str | None, code: str) -> str:
    """A code of AWS, and what is known of the text beside it, which may quote the message."""
    known, name = known_text(message or "", _SERVICE), _CODE.fullmatch(code)
    shown = name[0] if name else "error"
    return f"{known} ({shown})" if known else shown
