"""Checks what user code returned or raised, so that all other code can trust it. Pure; never raises.

In a checked value types, finiteness and ranges hold: an outcome is exactly one of the four classes, `Retry.after` is
between 0 and `LONGEST`, and an error's code, provider, `retry_after` and scope are as `kafka_notify.errors` says. An
object of user code is kept only if its fields cannot change any more, so that no method of a subclass runs later.

Each function returns a usable value and a sentence on what was wrong, which names classes and fields, never values.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from kafka_notify._base import codes
from kafka_notify._base.units import LONGEST, clamped
from kafka_notify._base.where import class_name, name_of
from kafka_notify.errors import (
    MAX_PROVIDER,
    DeliveryError,
    InvalidRecipientError,
    PermanentError,
    ProviderUnavailableError,
    ThrottledError,
    ThrottleScope,
    TransientError,
    UnknownOutcomeError,
    plain_text,
    valid_code,
)
from kafka_notify.notification import Receipt
from kafka_notify.outcome import Dead, Outcome, Retry, Sent, Skipped

_OUTCOMES: Final = (Sent, Retry, Dead, Skipped)
_ERRORS: Final = (
    InvalidRecipientError, PermanentError, ProviderUnavailableError, ThrottledError, TransientError,
    UnknownOutcomeError, DeliveryError,
)  # fmt: skip
"""Subclasses before their bases."""
_SCOPES: Final = frozenset(get_args(ThrottleScope))
_MISSING: Final = object()
_Wrong = str


def unhandled(value: object) -> str:
    """The error code for an exception of which only the class is known."""
    return valid_code(f"{codes.UNHANDLED}{name_of(value)[:53]}") or codes.UNHANDLED_UNKNOWN


def is_error(value: object) -> bool:
    """True for a `DeliveryError`. `isinstance` would run user code, because it asks for `__class__`."""
    return issubclass(type(value), DeliveryError)


# -- outcomes ------------------------------------------------------------------------------------------


def check_outcome(outcome: object) -> tuple[Outcome | None, _Wrong]:
    """Check an outcome, perhaps of a middleware. The first value is None when it cannot be used."""
    try:
        for kind in _OUTCOMES:
            if issubclass(type(outcome), kind):
                return _check_outcome(outcome, kind)
    except BaseException:  # a metaclass of user code
        return None, "an outcome cannot be read"
    return None, f"a {name_of(outcome)} is not an outcome"


def _check_outcome(outcome: Any, kind: type[Outcome]) -> tuple[Outcome | None, _Wrong]:
    if kind is Sent:
        receipt, wrong = check_receipt(_read(outcome, "receipt"))
        if receipt is None:
            return None, f"Sent.receipt is {wrong}"
        return (outcome if type(outcome) is Sent and outcome.receipt is receipt else Sent(receipt)), wrong
    if kind is Skipped:
        reason = _read(outcome, "reason")
        text = plain_text(reason)
        if text is None:
            return None, _is("Skipped.reason", reason, "a str")
        return (outcome if type(outcome) is Skipped and text is reason else Skipped(text)), ""
    error, wrong = _read(outcome, "error"), ""
    if error is not None:
        if not is_error(error):
            return None, _is(f"{kind.__name__}.error", error, "a DeliveryError")
        error, wrong = check_error(error)
    if kind is Dead:
        reason = _read(outcome, "reason")
        text = plain_text(reason)
        if text is None:
            return None, _is("Dead.reason", reason, "a str")
        kept = type(outcome) is Dead and text is reason and outcome.error is error
        return (outcome if kept else Dead(text, error)), wrong
    given, counted = _read(outcome, "after"), _read(outcome, "counted")
    after = clamped(given)
    if after is None:
        return None, _is("Retry.after", given, "a number of seconds up to 366 days")
    if type(counted) is not bool:
        return None, _is("Retry.counted", counted, "a bool")
    kept = (
        type(outcome) is Retry and type(given) in (int, float) and given == after and outcome.error is error
    )
    return (outcome if kept else Retry(after, counted, error)), wrong


def check_receipt(receipt: object) -> tuple[Receipt | None, _Wrong]:
    """Check what `send` returned. Any `Receipt` means that the provider accepted, so invalid fields are replaced."""
    try:
        kind = type(receipt)
        if not issubclass(kind, Receipt):
            return None, f"a {name_of(receipt)}, not a Receipt"
        provider, message = _read(receipt, "provider"), _read(receipt, "message_id")
        fine = type(provider) is str and len(provider) <= MAX_PROVIDER and type(message) in (str, type(None))
        if fine and (kind is Receipt or _is_plain(kind, Receipt, ("provider", "message_id"))):
            return receipt, ""  # type: ignore[return-value]
        who, which = plain_text(provider), plain_text(message)
        wrong = [] if who is not None else [_is("provider", provider, "a str")]
        if which is None and message is not None:
            wrong.append(_is("message_id", message, "a str"))
        told = f"accepted, with a {name_of(receipt)} whose {' and '.join(wrong)}" if wrong else ""
        return Receipt("unknown" if who is None else who, which), told
    except BaseException:  # a metaclass of user code
        return Receipt("unknown"), "accepted, with a receipt that cannot be read"


# -- errors --------------------------------------------------------------------------------------------


def check_error(error: Any) -> tuple[DeliveryError, _Wrong]:
    """Check a `DeliveryError` of user code. Its kind is kept; a field that cannot be used gets its default."""
    try:
        given: object = error
        kind = type(given)
        if kind in _FIELDS and not error._left_out and _is_valid(error, _FIELDS[kind]):
            return error, ""
        known: Any = next(base for base in _ERRORS if issubclass(kind, base))
        return _check_error(error, kind, known)
    except BaseException:  # a metaclass of user code
        return TransientError(codes.UNHANDLED_UNKNOWN), "an error cannot be read"


def _check_error(error: Any, kind: type, known: Any) -> tuple[DeliveryError, _Wrong]:
    fields = _FIELDS[known]
    found = {name: _read(error, name) for name in fields}
    wrong = [name for name in fields if not _VALID[name](found[name])]
    told = [f"{name} was a {class_name(was)}, not {_INSTEAD[name]}" for name, was in error._left_out]
    if not wrong and (kind is known or _is_plain(kind, known, fields)):
        return error, _told(error, told)
    code, scope = valid_code(found["code"]), plain_text(found.get("scope"))
    clean: Any = known(code or unhandled(error), provider=plain_text(found["provider"]))
    if "retry_after" in found:
        clean.retry_after = clamped(found["retry_after"])
    if scope in _SCOPES:
        clean.scope = scope
    # a field that was converted as meant (from an enum member, a negative wait) needs no warning
    for name in wrong:
        value = found[name]
        taken = {"code": code, "scope": scope in _SCOPES}.get(name, getattr(clean, name) is not None)
        if value is _MISSING or not taken:
            told.append(_is(name, value, _INSTEAD[name]))
    return clean, _told(error, told)


def _is_valid(error: DeliveryError, fields: tuple[str, ...]) -> bool:
    return all(_VALID[name](_read(error, name)) for name in fields)


def _told(error: object, fields: list[str]) -> _Wrong:
    return f"raised {name_of(error)}, whose {' and '.join(fields)}" if fields else ""


def _is_code(value: Any) -> bool:
    return type(value) is str and bool(valid_code(value))


def _is_provider(value: Any) -> bool:
    return value is None or (type(value) is str and len(value) <= MAX_PROVIDER)


def _is_wait(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= LONGEST)


def _is_scope(value: Any) -> bool:
    return type(value) is str and value in _SCOPES


_INSTEAD: Final[dict[str, str]] = {
    "code": "a short token",
    "provider": "a str",
    "retry_after": "a number of seconds up to 366 days",
    "scope": "one that is known",
}
_FIELDS: Final[dict[type, tuple[str, ...]]] = {
    **dict.fromkeys(_ERRORS, ("code", "provider")),
    TransientError: ("code", "provider", "retry_after"),
    ThrottledError: ("code", "provider", "retry_after", "scope"),
}
_READS: Final = ("__class__", "__getattribute__", "__getattr__", "_left_out")
_VALID: Final[dict[str, Any]] = {
    "code": _is_code, "provider": _is_provider, "retry_after": _is_wait, "scope": _is_scope,
}  # fmt: skip


def _is(name: str, value: object, instead: str) -> _Wrong:
    return f"{name} is missing" if value is _MISSING else f"{name} is a {name_of(value)}, not {instead}"


# -- reading objects of user code --------------------------------------------------------------------------


def _read(value: object, name: str) -> Any:
    """An attribute; `_MISSING` when it does not exist or reading it raises."""
    try:
        return getattr(value, name, _MISSING)
    except BaseException:  # a property of user code
        return _MISSING


def _is_plain(kind: type, known: type, fields: Any) -> bool:
    """True when a subclass reads these fields as `known` does, so that their values cannot change later."""
    own = kind.__mro__[: kind.__mro__.index(known)]
    return not any(name in vars(base) for base in own for name in (*fields, *_READS))
