"""Bounded values of labels: neither a writer to a topic nor a sender's bug may create a series per notification."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from kafka_notify._base import codes as _codes
from kafka_notify._classify.provider_codes import EXCEPTION_CODES, PROVIDER_CODES

OTHER: Final = "other"
NONE: Final = "none"
DEFERRED: Final = _codes.DEFERRED.rstrip(".")
PROVIDERS: Final = 20
"""Providers that get a label value of their own."""

_OWN: Final = (
    _codes.TIMEOUT,
    _codes.CANCELLED,
    _codes.NO_RECEIPT,
    _codes.INVALID_CODE,
    _codes.INVALID_OUTCOME,
    _codes.NO_VERDICT,
    _codes.TLS_CERTIFICATE,
    _codes.HTTP_INVALID,
    _codes.SMTP_NO_REPLY,
)
_STATUS: Final = re.compile(r"http\.[1-5]\d\d")
_REPLY: Final = re.compile(r"(smtp\.[2-5]\d\d)(-.*)?")
_FAMILY: Final = re.compile(rf"({_codes.UNHANDLED[:-1]}|{_codes.CLASSIFY[:-1]}|{DEFERRED})\..*")


class OneOf:
    """Maps a name of a closed set to itself, and any other value to `other`."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    def __call__(self, name: str | None) -> str:
        return name if name is not None and name in self._names else OTHER


class FirstFew:
    """Maps the first `limit` values to themselves, later ones to `other`, and None to `none`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def __call__(self, value: str | None) -> str:
        if value is None:
            return NONE
        if value not in self._seen:
            if len(self._seen) >= self._limit:
                return OTHER
            self._seen.add(value)
        return value


class Codes:
    """Maps an error code to itself if it is known, to its family if that is, and otherwise to `other`.

    Args:
        more: The team's own codes.
    """

    def __init__(self, more: Iterable[str]) -> None:
        of_providers = {f"{name}.{code}" for name, codes in PROVIDER_CODES.items() for code in codes}
        of_exceptions = {code for _, code in EXCEPTION_CODES.values()}
        self._known = frozenset({*_OWN, *of_providers, *of_exceptions, *more})

    def __call__(self, code: str | None) -> str:
        if code is None:
            return OTHER
        if code in self._known or _STATUS.fullmatch(code):
            return code
        found = _REPLY.fullmatch(code) or _FAMILY.fullmatch(code)
        return found[1] if found else OTHER
