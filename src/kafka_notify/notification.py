"""What is sent: `Category` and `Notification`, and the small values around one send."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import time
import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, NamedTuple, NoReturn, cast, overload

import attrs
from attrs.exceptions import FrozenInstanceError
from typing_extensions import TypeVar

from kafka_notify._base.arguments import check_choice, check_flag, to_seconds
from kafka_notify._base.names import check_name
from kafka_notify._base.units import Seconds, from_millis, to_millis
from kafka_notify._wire.ids import derived_id
from kafka_notify._wire.payload import check_payload_class, structure
from kafka_notify.errors import ConfigError, InvalidNotificationError

D = TypeVar("D", default=Mapping[str, Any])
T = TypeVar("T")

MAX_USER_ID_BYTES: Final = 256
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_MAX_MS: Final = 253_402_300_799_999  # 9999-12-31, the last that datetime can hold


class Category(Generic[D]):
    """What a notification is about (`otp`, `marketing`, ...). Its lane gives the priority.

    Frozen; equal by value. Share it between the producing and the sending service.

    Args:
        name: Lower-case letters, digits, `_` and `-`, at most 63.
        lane: Name of the lane its notifications travel on.
        payload: An attrs class or dataclass that `Notification.data` holds; else a JSON object. Its fields, and those
            of classes in it, must be certain to come back from JSON: no unions of types that look alike there
            (`Decimal | str`, two classes without a `Literal` field to tell them apart), no `InitVar`, no enum with
            values other than text and numbers, no class of another kind (pydantic, TypedDict). `Producer.send`
            checks each value completely.
        ttl: Seconds (or a timedelta) after which a notification is not sent any more.
        sensitive: Hide the data in the dead-letter topic unless `dlq_payload` says otherwise.
        dlq_payload: `keep` or `redact`; None follows `sensitive`.

    Raises:
        ConfigError: A value is out of range, or the payload class is not certain to come back; the text names the
            field and what to write instead.
    """

    __slots__ = ("dlq_payload", "lane", "name", "payload", "sensitive", "ttl")
    name: str
    lane: str
    payload: type[D] | None
    ttl: float | None
    sensitive: bool
    dlq_payload: Literal["keep", "redact"]

    @overload
    def __init__(
        self: Category[Mapping[str, Any]],
        name: str,
        lane: str,
        *,
        ttl: Seconds | None = None,
        sensitive: bool = False,
        dlq_payload: Literal["keep", "redact"] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        lane: str,
        *,
        payload: type[D],
        ttl: Seconds | None = None,
        sensitive: bool = False,
        dlq_payload: Literal["keep", "redact"] | None = None,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        lane: str,
        *,
        payload: type[Any] | None = None,
        ttl: Seconds | None = None,
        sensitive: bool = False,
        dlq_payload: Literal["keep", "redact"] | None = None,
    ) -> None:
        check_name("Category.name", name)
        check_name("Category.lane", lane)
        check_flag(sensitive, f"sensitive of category {name!r}")
        check_choice(dlq_payload, ("keep", "redact", None), f"dlq_payload of category {name!r}")
        seconds = None if ttl is None else to_seconds(ttl, f"ttl of category {name!r}")
        if seconds == 0:
            raise ConfigError(f"ttl of category {name!r} must be > 0: with 0 nothing would ever be sent")
        if payload is not None:
            check_payload_class(payload)
        values = (name, lane, payload, seconds, sensitive, dlq_payload or ("redact" if sensitive else "keep"))
        for slot, value in zip(
            ("name", "lane", "payload", "ttl", "sensitive", "dlq_payload"), values, strict=True
        ):
            object.__setattr__(self, slot, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError

    def _key(self) -> tuple[object, ...]:
        return (self.name, self.lane, self.payload, self.ttl, self.sensitive, self.dlq_payload)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Category) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.name, self.lane))

    def __repr__(self) -> str:
        return f"Category({self.name!r}, {self.lane!r}, ttl={self.ttl}, sensitive={self.sensitive})"

    def __reduce__(self) -> tuple[Callable[..., Category[Any]], tuple[object, ...]]:
        return _category, self._key()


def _category(
    name: str, lane: str, payload: Any, ttl: Any, sensitive: bool, dlq_payload: Any
) -> Category[Any]:
    return Category(name, lane, payload=payload, ttl=ttl, sensitive=sensitive, dlq_payload=dlq_payload)


class _Fields(Generic[D]):
    """A notification's fields while they are set: assigning is five times faster than going around the guard."""

    __slots__ = (
        "_created_ms", "_data", "_expires_ms", "_headers",
        "category", "channel", "collapse_key", "correlation_id", "id", "recipient", "user_id",
    )  # fmt: skip
    user_id: str
    category: str
    channel: str
    recipient: str | None
    id: str
    collapse_key: str | None
    correlation_id: str | None
    _data: D
    _created_ms: int
    _expires_ms: int | None
    _headers: Mapping[str, str] | Callable[[], Mapping[str, str]]


class Notification(_Fields[D]):
    """One message to one user. Frozen; equal and hashed by id; `repr` hides data and recipient.

    Args:
        user_id: The partition key: not empty, no surrounding white space, at most 256 UTF-8 bytes.
        category: A `Category`, or the name of one in the topology.
        channel: `sms`, `email`, ...: which consumer sends it.
        data: What the sender needs to build the message; the category's payload class, or a mapping.
        recipient: Address, number or token; None when the sender looks it up.
        id: `[A-Za-z0-9_-]{1,128}`, a uuid4 by default. With the consumer's group and the user it makes
            the idempotency key of every attempt.
        created_at: Aware datetime; now by default. Kept to the millisecond.
        expires_at: Aware datetime after which no attempt starts; by default created_at + the category's ttl.
        collapse_key: A newer notification of the same user with the same key supersedes a waiting one.
        correlation_id: Anything that ties it to the request that caused it.
        headers: The caller's own Kafka headers, passed through every hop; names must not start with `notif-`.

    Raises:
        InvalidNotificationError: A field breaks its rule; the text names both, never the value.
    """

    __slots__ = ()

    def __init__(
        self,
        *,
        user_id: str,
        category: Category[D] | str,
        channel: str,
        data: D,
        recipient: str | None = None,
        id: str | None = None,
        created_at: dt.datetime | None = None,
        expires_at: dt.datetime | None = None,
        collapse_key: str | None = None,
        correlation_id: str | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        check_user_id(user_id)
        if isinstance(category, Category):
            name = category.name
            if category.payload is not None and not isinstance(data, category.payload):
                raise InvalidNotificationError(
                    f"data must be a {category.payload.__qualname__}, the payload class of category {name!r}, "
                    f"not a {type(data).__qualname__}"
                )
        else:
            name = _text("category", category, required=True) or ""
        if id is None:
            id = str(uuid.uuid4())
        elif not isinstance(id, str) or not _ID.fullmatch(id):
            raise InvalidNotificationError("id must be 1 to 128 letters, digits, '_' or '-'")
        created_ms = time.time_ns() // 1_000_000 if created_at is None else _moment("created_at", created_at)
        if expires_at is not None:
            expires_ms: int | None = _moment("expires_at", expires_at)
            if expires_ms is not None and expires_ms <= created_ms:
                raise InvalidNotificationError("expires_at must lie after created_at")
        elif isinstance(category, Category) and category.ttl is not None:
            expires_ms = min(created_ms + round(category.ttl * 1000), _MAX_MS)
        else:
            expires_ms = None
        put = object.__setattr__
        put(self, "user_id", user_id)
        put(self, "category", name)
        put(self, "channel", _text("channel", channel, required=True))
        put(self, "recipient", _text("recipient", recipient))
        put(self, "id", id)
        put(self, "collapse_key", _text("collapse_key", collapse_key))
        put(self, "correlation_id", _text("correlation_id", correlation_id))
        put(self, "_data", data)
        put(self, "_created_ms", created_ms)
        put(self, "_expires_ms", expires_ms)
        put(self, "_headers", _own_headers(headers))

    @property
    def data(self) -> D:
        """What the sender needs to build the message."""
        return self._data

    def data_as(self, cls: type[T]) -> T:
        """The data as an instance of `cls` (an attrs class or dataclass); for callers that know the category.

        Raises:
            InvalidNotificationError: The data does not fit the class.
        """
        return self._data if isinstance(self._data, cls) else structure(cls, self._data)

    @property
    def created_at(self) -> dt.datetime:
        """When it was made, UTC, to the millisecond."""
        return from_millis(self._created_ms)

    @property
    def expires_at(self) -> dt.datetime | None:
        """The moment from which no attempt starts any more, UTC."""
        return None if self._expires_ms is None else from_millis(self._expires_ms)

    @property
    def headers(self) -> Mapping[str, str]:
        """The caller's own headers."""
        if callable(self._headers):
            object.__setattr__(self, "_headers", MappingProxyType(dict(self._headers())))
        return cast(Mapping[str, str], self._headers)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError

    def __eq__(self, other: object) -> bool:
        return self.id == other.id if isinstance(other, Notification) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Notification(id={self.id!r}, category={self.category!r}, channel={self.channel!r})"

    def __reduce__(self) -> tuple[Callable[..., Notification[Any]], tuple[object, ...]]:
        n = self
        return unchecked, (
            n.user_id, n.category, n.channel, n.recipient, n.id, n.collapse_key, n.correlation_id,
            n._data, n._created_ms, n._expires_ms, dict(n.headers),
        )  # fmt: skip


def with_headers(notification: Notification[Any], more: Mapping[str, str]) -> Notification[Any]:
    """The same notification with more headers of the caller's own."""
    n = notification
    return unchecked(
        n.user_id,
        n.category,
        n.channel,
        n.recipient,
        n.id,
        n.collapse_key,
        n.correlation_id,
        n._data,
        n._created_ms,
        n._expires_ms,
        _own_headers({**n.headers, **more}),
    )


def unchecked(
    user_id: str,
    category: str,
    channel: str,
    recipient: str | None,
    id: str,
    collapse_key: str | None,
    correlation_id: str | None,
    data: object,
    created_ms: int,
    expires_ms: int | None,
    headers: Mapping[str, str] | Callable[[], Mapping[str, str]],
) -> Notification[Any]:
    """A notification from what came off the wire and was checked there."""
    fields: Any = _Fields()
    fields.user_id = user_id
    fields.category = category
    fields.channel = channel
    fields.recipient = recipient
    fields.id = id
    fields.collapse_key = collapse_key
    fields.correlation_id = correlation_id
    fields._data = data
    fields._created_ms = created_ms
    fields._expires_ms = expires_ms
    fields._headers = headers
    fields.__class__ = Notification
    return fields  # type: ignore[no-any-return]


def check_user_id(user_id: object) -> None:
    """Raise `InvalidNotificationError` unless this can be a partition key."""
    if not isinstance(user_id, str) or not user_id:
        raise InvalidNotificationError(
            "user_id must be a non-empty str: it is the partition key that keeps a user's order"
        )
    if user_id != user_id.strip():
        raise InvalidNotificationError(
            "user_id must not begin or end with white space: 'u1' and 'u1 ' would be two users"
        )
    try:
        size = len(user_id.encode())
    except UnicodeEncodeError:
        raise InvalidNotificationError("user_id must be valid Unicode (it holds a lone surrogate)") from None
    if size > MAX_USER_ID_BYTES:
        raise InvalidNotificationError(f"user_id must be at most {MAX_USER_ID_BYTES} UTF-8 bytes, not {size}")


def _text(field: str, value: object, *, required: bool = False) -> str | None:
    if value is None and not required:
        return None
    if not isinstance(value, str) or (required and not value):
        raise InvalidNotificationError(f"{field} must be a {'non-empty ' if required else ''}str")
    if _CONTROL.search(value):
        raise InvalidNotificationError(f"{field} must not hold control characters (it travels in a header)")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidNotificationError(f"{field} must be valid Unicode (it holds a lone surrogate)") from None
    return value


def _moment(field: str, value: object) -> int:
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        raise InvalidNotificationError(
            f"{field} must be an aware datetime, such as datetime.now(timezone.utc)"
        )
    millis = to_millis(value)
    if millis < 0:
        raise InvalidNotificationError(f"{field} must not lie before 1970")
    return min(millis, _MAX_MS)  # west of Greenwich the last datetimes lie beyond what UTC can say


def _own_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    if not headers:
        return _NO_HEADERS
    for name, value in headers.items():
        if (
            not isinstance(name, str)
            or not name
            or name.lower().startswith("notif-")
            or name == "content-type"
        ):
            raise InvalidNotificationError(
                "headers: names must be non-empty, not 'content-type' and not begin with 'notif-'"
            )
        if not isinstance(value, str):
            raise InvalidNotificationError(f"headers: the value of {name!r} must be a str")
        try:
            value.encode()
            name.encode()
        except UnicodeEncodeError:
            raise InvalidNotificationError("headers: names and values must be valid Unicode") from None
    return MappingProxyType(dict(headers))


@attrs.frozen
class Receipt:
    """The provider accepted a notification: what `send` returns.

    Args:
        provider: For example `twilio`; a label in events and metrics, so keep it to a few values.
        message_id: What the provider calls the message.
    """

    provider: str
    message_id: str | None = None


class SendKey(NamedTuple):
    """What makes a notification one and the same for a provider and a store of accepted ones.

    An id alone does not: producers may choose the same for two users, and two consumers may send the same notification
    through one provider's account. Nor does an id that was derived from topic, partition and offset: topics of two
    clusters, or one that was created again, have the same places. As text it is a UUID, made only when somebody asks.
    """

    group: str
    user_id: str
    id: str
    origin: tuple[str, str, int, int] | None = None
    """Where its record is, if the id may have been derived from that: the topic's id and name, partition, offset."""

    def __str__(self) -> str:
        # neither a group's name nor an id holds a NUL, and no id an @, so that no two keys make one text
        id = self.id
        if self.origin is not None:
            topic_id, topic, partition, offset = self.origin
            if topic_id and id == derived_id(topic, partition, offset):
                id = f"{id}@{topic_id}"
        digest = hashlib.blake2b(
            f"{self.group}\0{id}\0{self.user_id}".encode(errors="surrogatepass"), digest_size=16
        )
        return str(uuid.UUID(bytes=digest.digest(), version=5))


KeyParts = tuple[str, str, str] | tuple[str, str, str, tuple[str, str, int, int]]
"""Of a `SendKey`: a plain tuple costs less."""


def send_key(parts: KeyParts) -> SendKey:
    """Of its parts."""
    return SendKey(parts[0], parts[1], parts[2], parts[3] if len(parts) == 4 else None)


def _key_text(key: str | KeyParts) -> str:
    return key if isinstance(key, str) else str(send_key(key))


@attrs.define
class _Attempt:
    """An attempt while it is made."""

    number: int
    """1-based; counted attempts only."""
    max_attempts: int
    _key: str | KeyParts = attrs.field(alias="idempotency_key", repr=_key_text)
    """Or the parts of a `SendKey`: one that is nobody's idempotency key is never made."""
    timeout: float
    """Seconds left for this call: the smaller of `send_timeout` and the remaining ttl."""
    remaining_ttl: float | None
    """Seconds until the notification expires; None when it never does."""
    maybe_sent: bool = False
    """An earlier attempt ended with an unknown outcome. False again after a redrive: whoever did that decided."""
    last_provider: str | None = None
    last_error: str | None = None
    """Code of the attempt before."""

    @property
    def idempotency_key(self) -> str:
        """A UUID made of group, user and id: the same at every attempt, redelivery and redrive, and never that of
        another user's notification or of another consumer's send."""
        return _key_text(self._key)


# attrs can do what pyright says it cannot, and nobody else sees the base
@attrs.frozen  # pyright: ignore[reportGeneralTypeIssues]
class Attempt(_Attempt):
    """One counted call of `send`, and what is known of those before."""


def new_attempt(
    number: int,
    max_attempts: int,
    key: KeyParts,
    timeout: float,
    remaining_ttl: float | None,
    maybe_sent: bool = False,
    last_provider: str | None = None,
    last_error: str | None = None,
) -> Attempt:
    """`Attempt(...)` at half the price, with the parts of a `SendKey`: one is made for every send."""
    attempt: Any = _Attempt(
        number, max_attempts, key, timeout, remaining_ttl, maybe_sent, last_provider, last_error
    )
    attempt.__class__ = Attempt
    return attempt  # type: ignore[no-any-return]


@attrs.frozen
class Send:
    """Verdict of `should_send`: go on."""


@attrs.frozen
class Skip:
    """Verdict of `should_send`: do not send; terminal.

    Args:
        reason: A short token for events and metrics, for example `unsubscribed`.
    """

    reason: str


def _aware(_: object, attribute: attrs.Attribute[dt.datetime], value: Any) -> None:
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        raise ConfigError(
            f"Defer.{attribute.name} must be an aware datetime, such as datetime.now(timezone.utc)"
        )


@attrs.frozen
class Defer:
    """Verdict of `should_send`: not before `until`; waits like a retry, and is no attempt.

    Args:
        until: Aware datetime.
        reason: A short token for events and metrics, for example `quiet_hours`.
    """

    until: dt.datetime = attrs.field(validator=_aware)
    reason: str


Verdict = Send | Skip | Defer
