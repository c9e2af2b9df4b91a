"""`Category` and `Notification`, and the values around one send."""

from __future__ import annotations

import datetime as dt
import re
import time
import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, NoReturn, cast, overload

from attrs.exceptions import FrozenInstanceError
from typing_extensions import TypeVar

from kafka_notify._base.arguments import check_choice, check_flag, to_seconds
from kafka_notify._base.names import check_name
from kafka_notify._base.units import Seconds, from_millis
from kafka_notify._wire.attempt import Attempt as Attempt
from kafka_notify._wire.attempt import Defer as Defer
from kafka_notify._wire.attempt import Receipt as Receipt
from kafka_notify._wire.attempt import Send as Send
from kafka_notify._wire.attempt import Skip as Skip
from kafka_notify._wire.attempt import Verdict as Verdict
from kafka_notify._wire.fields import MAX_MS, NO_HEADERS, check_user_id, moment, own_headers, text
from kafka_notify._wire.payload import check_payload_class, structure
from kafka_notify.errors import ConfigError, InvalidNotificationError

D = TypeVar("D", default=Mapping[str, Any])
T = TypeVar("T")

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Category(Generic[D]):
    """The kind of a notification (`otp`, `marketing`, ...), which determines its lane.

    Frozen; equal by value. Share it between the producing and the sending service.

    Args:
        name: Lower-case letters, digits, `_` and `-`, at most 63.
        lane: Name of the lane that carries its notifications.
        payload: An attrs class or dataclass that `Notification.data` holds; else a JSON object. Its fields, and those
            of classes in it, must be certain to come back from JSON: no unions of types that look alike there
            (`Decimal | str`, two classes without a `Literal` field to tell them apart), no `InitVar`, no enum with
            values other than text and numbers, no class of another kind (pydantic, TypedDict). `Producer.send`
            checks each value completely.
        ttl: Seconds (or a timedelta) after its creation from which no attempt of a notification starts; None has no
            limit.
        sensitive: Hide the data in the dead-letter topic unless `dlq_payload` says otherwise.
        dlq_payload: `keep` the data in dead letters, or `redact` it; None follows `sensitive`.

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
        channel: Name of the channel (`sms`, `email`), which determines the consumer.
        data: Content for the sender to build the message from: the category's payload class, or a mapping.
        recipient: Address, number or token; None when the sender looks it up.
        id: `[A-Za-z0-9_-]{1,128}`, a uuid4 by default. With the consumer's group and the user it makes
            the idempotency key of every attempt.
        created_at: Aware datetime; now by default. Kept to the millisecond.
        expires_at: Aware datetime after which no attempt starts; by default created_at + the category's ttl.
        collapse_key: A newer notification of the same user with the same key supersedes a waiting one.
        correlation_id: Text that ties it to the request that caused it.
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
        headers: Mapping[str, str] = NO_HEADERS,
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
            name = text("category", category, required=True) or ""
        if id is None:
            id = str(uuid.uuid4())
        elif not isinstance(id, str) or not _ID.fullmatch(id):
            raise InvalidNotificationError("id must be 1 to 128 letters, digits, '_' or '-'")
        created_ms = time.time_ns() // 1_000_000 if created_at is None else moment("created_at", created_at)
        if expires_at is not None:
            expires_ms: int | None = moment("expires_at", expires_at)
            if expires_ms is not None and expires_ms <= created_ms:
                raise InvalidNotificationError("expires_at must be after created_at")
        elif isinstance(category, Category) and category.ttl is not None:
            expires_ms = min(created_ms + round(category.ttl * 1000), MAX_MS)
        else:
            expires_ms = None
        put = object.__setattr__
        put(self, "user_id", user_id)
        put(self, "category", name)
        put(self, "channel", text("channel", channel, required=True))
        put(self, "recipient", text("recipient", recipient))
        put(self, "id", id)
        put(self, "collapse_key", text("collapse_key", collapse_key))
        put(self, "correlation_id", text("correlation_id", correlation_id))
        put(self, "_data", data)
        put(self, "_created_ms", created_ms)
        put(self, "_expires_ms", expires_ms)
        put(self, "_headers", own_headers(headers))

    @property
    def data(self) -> D:
        """Content for the sender to build the message from."""
        return self._data

    def data_as(self, cls: type[T]) -> T:
        """Return the data as an instance of a class, for callers that know the category.

        Args:
            cls: An attrs class or dataclass.

        Raises:
            InvalidNotificationError: The data does not fit the class.
        """
        return self._data if isinstance(self._data, cls) else structure(cls, self._data)

    @property
    def created_at(self) -> dt.datetime:
        """Time of creation, UTC, to the millisecond."""
        return from_millis(self._created_ms)

    @property
    def expires_at(self) -> dt.datetime | None:
        """Time from which no attempt starts any more, UTC; None when there is none."""
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
    """Return a copy of a notification with more headers of the caller's own.

    Args:
        notification: The notification to copy.
        more: Headers to add or replace.

    Raises:
        InvalidNotificationError: A header breaks its rule.
    """
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
        own_headers({**n.headers, **more}),
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
    """Make a notification of fields that were checked when they were read: as `Notification`, without the checks.

    Args: As for `Notification`; times are epoch milliseconds.
    """
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
