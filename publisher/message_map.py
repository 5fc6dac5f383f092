"""A map: a function of the user that makes the wire form of a message, what its broker gets.

The relay calls it where it makes messages (`publisher.relay.sender`), so that a message which it
leaves out or fails for ends the run of its subject at the right place. No I/O.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from threading import Thread
from typing import Final, cast

import msgspec
from msgspec import structs

from dsql_outbox.observability.facts import PublishEnded, PublishResult
from dsql_outbox.observability.hooks import Hook, emit
from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.content_type import JSON, content_type_fault
from dsql_outbox.outbox.errors import InvalidEvent, OutboxError
from dsql_outbox.outbox.event.json_encoding import encode_json
from dsql_outbox.outbox.event.own_headers import is_header_name, parse_headers
from dsql_outbox.outbox.interrupt import comes_from_handler
from dsql_outbox.outbox.message import RESERVED_HEADERS, Message
from dsql_outbox.outbox.redaction import places_of
from dsql_outbox.publisher.first_errors import FirstErrors
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks.port import Rejected, Retry

MessageMap = Callable[[Message], object]
"""A plain function that takes a message as it is stored, and returns one of these:

- bytes, a str, or a value with a form in JSON that is an object or an array: the payload
- a `WireForm`: a payload with a content type and headers
- the message itself, which is then sent as it is stored
- None: this target does not get the message
- a `Refuse`: the message is given up

It is called for each attempt and each replay, and must not block. An object with ``__call__`` may
have a method ``open``, which is called once in a thread before anything is relayed.
"""

OCTETS: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"

_OURS: Final = RESERVED_HEADERS - {"type", "time", "entities"}
"""The headers that a map can neither set nor leave out: order, deduplication, traces and the inbox
depend on them, or they follow from the payload."""

_RESERVED: Final = RESERVED_HEADERS - {"type"}
"""Those that it cannot set. It may leave out ``time`` and ``entities``."""

_TOPICS: Final = 10_000
"""The most topics for which it is known that the map works."""

_LONGEST: Final = 1_000
"""The most characters of a reason that are kept."""

_content_type_fault: Final = lru_cache(maxsize=256)(content_type_fault)
"""A map has few content types."""

_RETURNS: Final = (
    "a map returns bytes, a str, a JSON object or array, None, Refuse(..), WireForm(..), or the "
    "message that it got"
)


class WireForm(msgspec.Struct, frozen=True):
    """What goes on the wire for a message.

    `payload` is bytes, a str, or a value with a form in JSON that is an object or an array: a
    mapping, a list, a dataclass, a msgspec Struct or a pydantic model. Without `content_type` the
    message has ``application/octet-stream``, ``text/plain; charset=utf-8`` or
    ``application/json``. `headers` are added to those of the message. None leaves one out.

        >>> WireForm("id,total", "text/csv", {"dataschema": "urn:loan:2"}).content_type
        'text/csv'
    """

    payload: object
    content_type: str | None = None
    headers: Mapping[str, str | None] = {}


class Refuse(msgspec.Struct, frozen=True):
    """The map refuses a message: it is given up now. The text in `reason` has no payload.

    Its first 1,000 characters are kept.
    It becomes a dead letter, or blocks its subject, as `PublisherSettings.on_dead_letter` says.

        >>> def to_message(message: Message) -> bytes | Refuse:
        ...     return message.payload or Refuse("it is empty")
    """

    reason: str


class MapFailed(OutboxError):
    """The map of a publisher raised an error, or returned what cannot be sent.

    The text names the type of an error or of a value, and quotes neither. `places` are the lines
    of the user's code that an error came through.

        >>> from dsql_outbox.testing import mapped
        >>> try:
        ...     mapped(lambda message: 1 // 0, event)
        ... except MapFailed as error:
        ...     print(error)
        the map raised ZeroDivisionError
    """

    def __init__(self, fault: str, places: Iterable[str] = ()) -> None:
        super().__init__(f"the map {fault}")
        self.places = tuple(places)

    @property
    def report(self) -> str:
        """The text and, on a line each, the places."""
        return "\n".join([str(self), *self.places])


def require_map(call: str, function: object) -> None:
    """Raise `TypeError`, with the expression to write, unless this can be a map.

    It must be a plain function, or an object that is called like one, and take one argument.
    """
    takes, instead = f"{call} takes a function of a message as its map", "map=to_message"
    if not callable(function):
        raise wrong_type(takes, function, instead)
    if isinstance(function, type):
        name = function.__name__
        raise TypeError(f"{takes}, not a class: map={name}() if its objects can be called")
    opening = getattr(function, "open", None)
    for each, name in ((function, "the map"), (opening, "the method open of the map")):
        of_object = getattr(each, "__call__", None)  # noqa: B004 - an object's own method
        if inspect.iscoroutinefunction(each) or inspect.iscoroutinefunction(of_object):
            raise TypeError(f"{name} must be a plain function: def, and not async def")
    if opening is not None and not callable(opening):
        raise wrong_type("the attribute open of a map is a method", opening, "def open(self)")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function in C may not tell
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(f"the map must take one argument, the message: {error}") from None


def open_map(function: object) -> None:
    """Let a map that has a method ``open`` prepare itself. Raises its error."""
    opening = getattr(function, "open", None)
    if opening is not None:
        opening()


async def open_map_in_thread(function: object) -> None:
    """Do as `open_map` in a thread, which is left alone if the wait for it is cancelled.

    So the process can end even if the map waits for a registry that does not answer.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[BaseException | None] = loop.create_future()

    def end(error: BaseException | None) -> None:
        if not opened.done():
            opened.set_result(error)

    def work() -> None:
        error = None
        try:
            open_map(function)
        except BaseException as failure:  # noqa: BLE001 - raised below
            error = failure
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(end, error)

    Thread(target=work, name="map", daemon=True).start()
    if (error := await opened) is not None:
        raise error


def wire_message(function: MessageMap, message: Message) -> Message | Refuse | None:
    """Return the message in its wire form, or None or the `Refuse` that the map returned.

    Key, topic, ids, place in the order and trace are those of the message that is given. Raises
    `MapFailed`.
    """
    headers = message.headers.copy()  # the map may change those that it gets
    try:
        return _formed(function(message), message, headers)
    except MapFailed:
        raise
    except BaseException as error:  # nothing cancels a plain function, or asks its process to end
        if isinstance(error, KeyboardInterrupt) or comes_from_handler(error):
            raise
        raise MapFailed(f"raised {type(error).__name__}", places_of(error)) from None


def _formed(made: object, message: Message, headers: dict[str, str]) -> Message | Refuse | None:
    """Return what a map has made of a message, with `headers`, which are those of the message."""
    if made is None:
        return None
    if made is message:
        return structs.replace(message, headers=headers)
    # First what is most common: a check against a Struct costs as much as all the rest.
    if isinstance(made, bytes | str):
        payload, kind = _encoded(made)
    elif isinstance(made, WireForm):
        payload, kind = _encoded(made.payload)
        if made.content_type is not None:
            kind = _content_type(made.content_type)
        if made.headers:
            _change_headers(headers, made.headers)
    elif isinstance(made, Refuse):
        return _refusal(made)
    else:
        payload, kind = _encoded(made)
    headers["datacontenttype"] = kind
    return structs.replace(message, headers=headers, payload=payload)


def _refusal(made: Refuse) -> Refuse:
    reason = cast("object", made.reason)  # a user may ignore the type
    if not isinstance(reason, str):
        raise MapFailed(f"refused it with a reason of type {type(reason).__name__}, not str")
    # A plain str: a subclass may have a text of its own.
    return Refuse(str.__getitem__(reason, slice(_LONGEST)))


def _encoded(value: object) -> tuple[bytes, str]:
    """Return a payload as bytes, with its content type."""
    if isinstance(value, bytes):
        return value, OCTETS
    name = type(value).__name__
    if isinstance(value, str):
        try:
            return value.encode(), TEXT
        except UnicodeEncodeError:
            raise MapFailed("returned a str with half a surrogate pair") from None
    if inspect.iscoroutine(value):
        value.close()  # or Python would warn that nobody awaited it
        raise MapFailed("returned a coroutine: it must be a plain function, and not async def")
    if isinstance(value, Message | WireForm | Refuse):
        raise MapFailed(f"returned an object of type {name} as a payload: {_RETURNS}")
    try:
        data = encode_json(value)
    except InvalidEvent as error:
        raise MapFailed(f"returned an object of type {name}: {error}; {_RETURNS}") from None
    if data[:1] not in {b"{", b"["}:
        raise MapFailed(f"returned an object of type {name}: {_RETURNS}")
    return data, JSON


def _content_type(given: object) -> str:
    if not isinstance(given, str):
        raise MapFailed(f"returned a content type of type {type(given).__name__}, which is no str")
    if _content_type_fault(given):  # its text would quote what may be a payload
        raise MapFailed(
            "returned a content type that is no media type, such as application/avro or text/plain"
        )
    return given


def _change_headers(headers: dict[str, str], changes: object) -> None:
    """Add headers to a message, and leave others out."""
    if not isinstance(changes, Mapping):
        kind = type(changes).__name__
        raise MapFailed(f'returned headers of type {kind}, and not as {{"tenant": "acme"}}')
    given = cast("Mapping[object, object]", changes)
    if not all(isinstance(name, str) and is_header_name(name) for name in given):
        raise MapFailed("returned a header whose name is not 1 to 20 of the characters a-z 0-9")
    try:
        added = parse_headers(
            {name: value for name, value in given.items() if value is not None},
            reserved=_RESERVED,
        )
    except InvalidEvent as error:
        raise MapFailed(f"returned headers that are not valid: {error}") from None
    for name in given.keys() - added.keys():
        if name in _OURS or name == "type":
            raise MapFailed(f"leaves out the header {name}, which each message has")
        headers.pop(str(name), None)
    headers.update(added)


class Mapper:
    """Calls the map of a publisher for messages of any topic, and judges what it returns."""

    def __init__(
        self, function: MessageMap, hooks: Iterable[Hook], settings: PublisherSettings
    ) -> None:
        self._function = function
        self._hooks = tuple(hooks)
        self._settings = settings
        self._works: set[str] = set()
        self._first = FirstErrors()

    def map(self, message: Message) -> Message | Retry | Rejected | None:
        """Return the message to send, or what follows from the answer of the map.

        None: it is left out. `Retry`: the map failed.
        """
        try:
            made = wire_message(self._function, message)
        except MapFailed as failure:
            text = "The map failed for event %s: %s (later ones are not logged)"
            if (error := failure.__context__) is not None:
                self._first.log(text, failure, error, message.event_id)
            return Retry(failure.report)
        if message.topic not in self._works:
            self._note_works(message.topic)
        if made is None or isinstance(made, Message):
            return made
        return Rejected(f"the map refused it: {made.reason}")

    def works(self, topic: str) -> bool:
        """Whether the map has returned for a message of this topic."""
        return topic in self._works

    def _note_works(self, topic: str) -> None:
        if len(self._works) >= _TOPICS:
            self._works.clear()
        self._works.add(topic)

    def tell(self, message: Message, outcome: Retry | Rejected) -> None:
        """Tell the hooks that a message failed, or was refused, before any sink got it."""
        is_rejected = isinstance(outcome, Rejected)
        result: PublishResult = "rejected" if is_rejected else "retry"
        rules = self._settings.for_topic(message.topic)
        leads_to = rules.consequence(message.attempt, is_rejected=is_rejected)
        error = outcome.error.partition("\n")[0]
        emit(
            self._hooks,
            PublishEnded(message.event_id, message.topic, result, error, message.attempt, leads_to),
        )
