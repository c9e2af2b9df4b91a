"""Unions: which of several types a JSON value is read as, and refusal of those that look alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka_notify._wire.payload_kinds import Convert, Form, Kind, Mismatch, Plain, form_of
from kafka_notify._wire.payload_leaves import ANY
from kafka_notify.errors import ConfigError


def union_of(kinds: list[Kind], where: str) -> Kind:
    if ANY in kinds:
        if all(kind is ANY or kind.leaf is not None for kind in kinds):
            return ANY
        raise ConfigError(
            f"{where} is a union with Any: its values would be read back as plain JSON data; use Any alone, or "
            "name the types"
        )
    tag = _tag(kinds)
    for at, kind in enumerate(kinds):
        for other in kinds[:at]:
            _check_apart(kind, other, where, tagged=tag is not None)
    writers: dict[type, Kind] = {}
    readers: dict[Form, list[Kind]] = {}
    for kind in kinds:
        for cls in kind.classes:
            writers.setdefault(cls, kind)
        for form in kind.forms:
            # a kind of few words comes first: Literal["a"] | str
            readers.setdefault(form, []).insert(0 if kind.words else len(readers.get(form, ())), kind)
    for kind in kinds:
        for form in kind.lenient:
            readers.setdefault(form, []).append(kind)
    expected = " or ".join(dict.fromkeys(kind.expected for kind in kinds))

    def read(value: Any) -> Any:
        form = form_of(value)
        if form == "object" and tag is not None:
            return tag(value)
        for kind in readers.get(form, ()) if form else ():
            try:
                return kind.read(value)
            except Mismatch:
                continue
        raise Mismatch(expected)

    def write(value: Any) -> Any:
        first = writers.get(value.__class__)
        if first is not None:
            try:
                return first.write(value)
            except Mismatch:
                pass
        for kind in kinds:
            if kind is not first:
                try:
                    return kind.write(value)
                except Mismatch:
                    continue
        raise Mismatch(expected)

    forms: frozenset[Form] = frozenset(form for kind in kinds for form in kind.forms)
    lenient: frozenset[Form] = frozenset(form for k in kinds for form in k.lenient if form not in forms)
    words = [kind.words for kind in kinds if "str" in kind.forms]
    few = None if None in words else frozenset(word for each in words for word in each or ())
    return Kind(
        read, write, expected, forms, lenient, tuple(writers), words=few,
        leaf=Plain if all(kind.leaf is not None for kind in kinds) else None,
    )  # fmt: skip


def _check_apart(kind: Kind, other: Kind, where: str, *, tagged: bool) -> None:
    common = kind.forms & other.forms
    classes = kind.tags is not None and other.tags is not None
    if tagged and classes:
        common -= {"object"}
    if kind.leaf is not None and other.leaf is not None:
        return  # Literal["a"] | str: either reads the same value
    if (
        common == {"str"}
        and kind.words is not None
        and other.words is not None
        and not kind.words & other.words
    ):
        return
    if not common:
        return
    remedy = (
        "give each class a field such as kind: Literal['mail'] = 'mail', with another value in each"
        if classes
        else "use one of them, or a class of its own for each"
    )
    raise ConfigError(
        f"{where} is a union of {kind.expected} and {other.expected}, which look alike as JSON "
        f"({'/'.join(sorted(common))}): one would be read back as the other; {remedy}"
    )


def _tag(kinds: list[Kind]) -> Convert | None:
    """Reads an object of a union by a field that all its classes declare, each as a `Literal` with other values."""
    members = [(kind, kind.tags) for kind in kinds if kind.tags is not None]
    if len(members) < 2:
        return None
    for name in members[0][1]:
        words = {word: kind for kind, tags in members for word in tags.get(name, ())}
        if all(name in tags for _, tags in members) and len(words) == sum(len(t[name]) for _, t in members):
            return _by_tag(name, words)
    return None


def _by_tag(name: str, members: Mapping[str, Kind]) -> Convert:
    expected = f"an object whose {name!r} is one of {', '.join(map(repr, sorted(members)))}"

    def read(value: Any) -> Any:
        word = value.get(name)
        kind = members.get(word) if type(word) is str else None
        if kind is None:
            raise Mismatch(expected)
        return kind.read(value)

    return read
