"""The rules for a notification's fields: each error names the field and the rule, never the value."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from kafka_notify._base.units import to_millis
from kafka_notify.errors import InvalidNotificationError

MAX_USER_ID_BYTES: Final = 256
MAX_MS: Final = 253_402_300_799_999  # 9999-12-31, the last that datetime can hold
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


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


def text(field: str, value: object, *, required: bool = False) -> str | None:
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


def moment(field: str, value: object) -> int:
    if not isinstance(value, dt.datetime) or value.tzinfo is None:
        raise InvalidNotificationError(
            f"{field} must be an aware datetime, such as datetime.now(timezone.utc)"
        )
    millis = to_millis(value)
    if millis < 0:
        raise InvalidNotificationError(f"{field} must not be before 1970")
    return min(millis, MAX_MS)  # west of Greenwich the last datetimes lie beyond what UTC can say


def own_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    if not headers:
        return NO_HEADERS
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
