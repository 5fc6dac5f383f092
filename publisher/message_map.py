"""A map: a function of the user that makes the wire form of a message, what its broker gets.

The relay calls it where it makes messages (`publisher.relay.sink_call`), so that a message which
it leaves out or fails for ends the run of its subject at the right place. No I/O.
"""

import asyncio
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from threading import Thread
from typing import Any, Final, cast

import msgspec
from msgspec import structs

from dsql_outbox.observability.facts import PublishEnded, PublishResult
from dsql_outbox.observability.hooks import Hook, emit
from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.content_type import JSON, content_type_fault
from dsql_outbox.outbox.errors import InvalidEvent, OutboxError
from dsql_outbox.outbox.event.json_encoding import encode_json
from dsql_outbox.outbox.event.own_headers import (
    MAX_HEADER_VALUE,
    MAX_HEADERS,
    is_header_name,
    parse_headers,
)
from dsql_outbox.outbox.interrupt import comes_from_handler
from dsql_outbox.outbox.message import (
    MAX_TOPIC,
    RESERVED_HEADERS,
    TRACE_HEADERS,
    Message,
    topic_fault,
)
from dsql_outbox.outbox.redaction import places_of
from dsql_outbox.outbox.settings import is_unicode
from dsql_outbox.publisher.first_errors import FirstErrors
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks.port import (
    TOMBSTONE,
    Properties,
    Rejected,
    Retry,
    Sink,
    Tombstone,
    takes,
)

MessageMap = Callable[[Message], object]
"""A plain function that takes a message as it is stored, and returns one of these:

- bytes, a str, or a value with a form in JSON that is an object or an array: the payload
- `TOMBSTONE`: a deletion, for Kafka
- a `WireForm`: a payload with a content type, headers, key or topic
- the message itself, which is then sent as it is stored
- None: this target does not get the message
- a `Refuse`: the message is given up

It is called for each attempt and each replay, and must not block. An object with ``__call__`` may
have a method ``open``, which is called once in a thread before anything is relayed.
"""

OCTETS: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"

_RESERVED: Final = RESERVED_HEADERS - {"type"}
"""The attributes that a map cannot set."""

_FIXED: Final = {*TRACE_HEADERS, "datacontenttype"}
"""Those that it cannot leave out: the publisher and `content_type` set them."""

_header_name: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}").fullmatch
_header_value: Final = re.compile(r"[!-~](?:[ -~]{0,1022}[!-~])?").fullmatch
"""What every broker takes, and gives back as it was."""

_OURS: Final = re.compile(
    r"ce[-_].*|nats-.*|dedupe-id|content-type|content-transfer-encoding|cloudevent|payload|topic"
    r"|traceparent|tracestate|baggage"
    r"|b?cc",  # by which RabbitMQ routes
    re.IGNORECASE,
).fullmatch
"""The names of headers that some sink uses itself."""

_MAX_KEY: Final = 1024
"""The most characters of a key."""

_TOPICS: Final = 10_000
"""The most topics for which it is known that the map works."""

_LONGEST: Final = 1_000
"""The most characters of a reason that are kept."""

_content_type_fault: Final = lru_cache(maxsize=256)(content_type_fault)
"""A map has few content types."""

_RETURNS: Final = (
    "a map returns bytes, a str, a JSON object or array, TOMBSTONE, None, Refuse(..), "
    "WireForm(..), or the message that it got"
)


class WireForm(msgspec.Struct, frozen=True):
    """What goes on the wire for a message.

    `payload` is bytes, a str, a value with a form in JSON that is an object or an array (a
    mapping, a list, a dataclass, a msgspec Struct or a pydantic model), or `TOMBSTONE`. Without
    `content_type` the message has ``application/octet-stream``, ``text/plain; charset=utf-8`` or
    ``application/json``.

    `headers` are added under these names. `attributes` are CloudEvents attributes, which are added
    under the names that the broker's binding makes of theirs; None leaves one out.

    `key` is the key for a broker that is given one, in place of the subject. `topic` is the topic
    in place of the stored one, on which alone it may depend. `properties` are those that one
    broker has beyond that, as ``dsql_outbox.brokers.rabbitmq.RabbitMqProperties``.

        >>> WireForm({"total": 5}, headers={"x-tenant": "acme"}, key="LOAN-7").key
        'LOAN-7'
    """

    payload: object
    content_type: str | None = None
    headers: Mapping[str, str] = {}
    attributes: Mapping[str, str | None] = {}
    key: str | None = None
    topic: str | None = None
    properties: Properties | None = None


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

    Subject, ids, place in the order and trace are those of the message that is given. Raises
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
    form = None
    # First what is most common: a check against a Struct costs as much as all the rest.
    if not isinstance(made, bytes | str):
        if isinstance(made, Refuse):
            return _refusal(made)
        form = made if isinstance(made, WireForm) else None
    payload, kind = _encoded(made if form is None else form.payload)
    more = {} if form is None else _beyond_payload(form, message, headers)
    if kind is None:
        headers.pop("datacontenttype", None)
        more["is_deletion"] = True
    else:
        headers["datacontenttype"] = more.pop("content_type", kind)
    return structs.replace(message, headers=headers, payload=payload, **more)


def _beyond_payload(made: WireForm, message: Message, headers: dict[str, str]) -> dict[str, Any]:
    """Return what else a map says, as fields of a message. `headers` get its attributes."""
    more: dict[str, Any] = {}
    if made.content_type is not None:
        if made.payload is TOMBSTONE:
            raise MapFailed("gave a content type to TOMBSTONE, which has no content")
        more["content_type"] = _content_type(made.content_type)
    if made.attributes:
        _change_attributes(headers, made.attributes)
    if made.headers:
        more["wire_headers"] = _wire_headers(made.headers)
    if made.key is not None:
        more["wire_key"] = _key(made.key)
    if made.properties is not None:
        more["properties"] = _properties(made.properties)
    if made.topic is not None and made.topic != message.topic:
        more["topic"], more["stored_topic"] = _topic(made.topic), message.topic
    return more


def _refusal(made: Refuse) -> Refuse:
    reason = cast("object", made.reason)  # a user may ignore the type
    if not isinstance(reason, str):
        raise MapFailed(f"refused it with a reason of type {type(reason).__name__}, not str")
    # A plain str: a subclass may have a text of its own.
    return Refuse(str.__getitem__(reason, slice(_LONGEST)))


def _encoded(value: object) -> tuple[bytes, str | None]:
    """Return a payload as bytes, with its content type; a deletion has none."""
    if isinstance(value, bytes):
        return value, OCTETS
    name = type(value).__name__
    if isinstance(value, str):
        try:
            return value.encode(), TEXT
        except UnicodeEncodeError:
            raise MapFailed("returned a str with half a surrogate pair") from None
    if value is TOMBSTONE:
        return b"", None
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


def _texts(changes: object, what: str) -> Mapping[object, object]:
    if not isinstance(changes, Mapping):
        kind = type(changes).__name__
        raise MapFailed(f'returned {what} of type {kind}, and not as {{"tenant": "acme"}}')
    return cast("Mapping[object, object]", changes)


def _change_attributes(headers: dict[str, str], changes: object) -> None:
    """Add attributes to a message, and leave others out."""
    given = _texts(changes, "attributes")
    if not all(isinstance(name, str) and is_header_name(name) for name in given):
        raise MapFailed(
            "returned an attribute whose name is not 1 to 20 of the characters a-z 0-9: a header "
            "may have another name"
        )
    try:
        added = parse_headers(
            {name: value for name, value in given.items() if value is not None},
            reserved=_RESERVED,
        )
    except InvalidEvent as error:
        raise MapFailed(f"returned attributes that are not valid: {error}") from None
    for name in given.keys() - added.keys():
        if name in _FIXED:
            raise MapFailed(f"leaves out the attribute {name}, which each message has")
        headers.pop(str(name), None)
    headers.update(added)


def _wire_headers(given: object) -> dict[str, str]:
    """Return the headers that a map adds, if every broker takes them."""
    found = _texts(given, "headers")
    if fault := _names_fault(tuple(found)):
        raise MapFailed(fault)
    for name, value in found.items():
        if not isinstance(value, str):
            raise MapFailed(f"returned the header {name} as {type(value).__name__}, not str")
        if not _header_value(value):
            raise MapFailed(
                f"returned the header {name} with a value that is not 1 to {MAX_HEADER_VALUE} "
                "printable characters of ASCII, without a blank at its ends"
            )
    return dict(cast("Mapping[str, str]", found))


@lru_cache(maxsize=256)  # a map has few sets of names
def _names_fault(names: tuple[object, ...]) -> str | None:
    if len(names) > MAX_HEADERS:
        return f"returned {len(names)} headers, over the limit of {MAX_HEADERS}"
    for name in names:
        if not isinstance(name, str) or not _header_name(name):
            return (
                "returned a header whose name is not 1 to 100 of the characters A-Z a-z 0-9 _ . -"
            )
        if _OURS(name):
            return (
                f"returned the header {name}, which a sink sets itself: leave it out, or set "
                "content_type or attributes"
            )
    return None


def _key(given: object) -> str:
    if not isinstance(given, str):
        raise MapFailed(f"returned a key of type {type(given).__name__}, not str")
    if not 1 <= len(given) <= _MAX_KEY or not is_unicode(given):
        raise MapFailed(f"returned a key that is not 1 to {_MAX_KEY} characters of Unicode")
    return given


def _topic(given: object) -> str:
    if not isinstance(given, str):
        raise MapFailed(f"returned a topic of type {type(given).__name__}, not str")
    if topic_fault(given):  # its text would quote what may be a payload
        raise MapFailed(
            f"returned a topic that not every broker takes: it has 1 to {MAX_TOPIC} of the "
            "characters A-Z a-z 0-9 . _ -, and no empty part between dots"
        )
    return given


def _properties(given: object) -> Properties:
    if not isinstance(given, Properties):
        kind = type(given).__name__
        raise MapFailed(f"returned properties of type {kind}, and not as RabbitMqProperties(..)")
    if fault := given.fault():
        raise MapFailed(f"returned {type(given).__name__} that are not valid: {fault}")
    return given


class Mapper:
    """Calls the map of a publisher for messages of any topic, and judges what it returns."""

    def __init__(
        self, function: MessageMap, hooks: Iterable[Hook], settings: PublisherSettings, sink: Sink
    ) -> None:
        self._function = function
        self._hooks = tuple(hooks)
        self._settings = settings
        self._sink = sink
        self._topics: dict[str, str | None] = {}
        """The topics for which it works, and the topics that it gives them."""
        self._first = FirstErrors()

    def map(self, message: Message) -> Message | Retry | Rejected | None:
        """Return the message to send, or what follows from the answer of the map.

        None: it is left out. `Retry`: the map failed.
        """
        try:
            made = wire_message(self._function, message)
            if isinstance(made, Message):
                self._check_properties(made)
            self._note_works(message.topic, made)
        except MapFailed as failure:
            text = "The map failed for event %s: %s (later ones are not logged)"
            if (error := failure.__context__) is not None:
                self._first.log(text, failure, error, message.event_id)
            return Retry(failure.report)
        if isinstance(made, Refuse):
            return Rejected(f"the map refused it: {made.reason}")
        if made is not None and made.is_deletion and Tombstone not in takes(self._sink):
            return Rejected("the map returned TOMBSTONE, which the sink has no form for: Kafka has")
        return made

    def _check_properties(self, made: Message) -> None:
        kind = type(made.properties)
        if made.properties is not None and kind not in takes(self._sink):
            raise MapFailed(f"returned {kind.__name__}, which are not for the broker of this sink")

    def works(self, topic: str) -> bool:
        """Whether the map has returned for a message of this topic."""
        return topic in self._topics

    def _note_works(self, topic: str, made: Message | Refuse | None) -> None:
        """Note that the map works for a topic. Raises `MapFailed` if it gives it another one.

        Pauses and the order of a subject hold by stored topic.
        """
        given = made.topic if isinstance(made, Message) else None
        before = self._topics.get(topic)
        if before is not None and given is not None and given != before:
            raise MapFailed("gave two topics to the messages of one stored topic")
        if before is None:
            if topic not in self._topics and len(self._topics) >= _TOPICS:
                self._topics.clear()
            self._topics[topic] = given

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
