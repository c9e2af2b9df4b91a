"""Public names have complete docstrings, read from their source: each parameter is explained, in plain English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kafka_notify

PACKAGE = Path(kafka_notify.__file__).parent
SOURCES: dict[str, str] = {
    **dict.fromkeys(
        (
            f"{name}.py"
            for name in "admin classify codec consumer deadletters errors events limits log notification otel outcome "
            "pauses policy producer prometheus redis topology worker".split()
        ),
        "",
    ),
    "_classify/replies.py": "classify_http",
    "_classify/smtp_replies.py": "classify_smtp",
    "_classify/waits.py": "retry_after",
    "_kafka/pending.py": "RecordMetadata PendingSend",
    "_wire/attempt.py": "Attempt Defer Receipt Send Skip",
}
"""The modules that users import from; and those that define what they re-export, with its names."""

MADE = {"MetricsServer", "PendingSend"}
"""Classes with a constructor that the library alone calls."""

VALUES = {"events.py"}
"""Modules whose classes the library makes and users read: their fields need no `Args`."""

_WOODEN = re.compile(r"(Whether|What|Those|Of)\b")
_NAMED = re.compile(r"^ +(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?: ", re.MULTILINE)

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(tree: ast.Module) -> Iterator[tuple[str, Documented]]:
    """Public classes and functions, and public methods of public classes."""
    for node in tree.body:
        if not isinstance(node, Documented) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    overload = any(
                        isinstance(d, ast.Name) and d.id == "overload" for d in member.decorator_list
                    )
                    if not member.name.startswith("_") and not overload:
                        yield f"{node.name}.{member.name}", member


def parameters(node: Documented) -> list[str]:
    """The names that callers give, or fill."""
    if isinstance(node, ast.ClassDef):
        made = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"]
        return parameters(made[-1]) if made else fields(node)
    given = node.args
    names = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    names += [each for each in (given.vararg,) if each is not None]
    return [each.arg for each in names if each.arg not in ("self", "cls") and not each.arg.startswith("_")]


def fields(node: ast.ClassDef) -> list[str]:
    """The fields of an attrs class that no text of their own explains."""
    if not any("attrs" in ast.unparse(decorator) for decorator in node.decorator_list):
        return []
    following = [*node.body[1:], None]
    return [
        each.target.id
        for each, text in zip(node.body, following, strict=True)
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
        and not (isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant))
    ]  # fmt: skip


def explained(docstring: str) -> set[str]:
    """The names in the `Args` section; all of them when it says "As for"."""
    _, _, after = docstring.partition("Args:")
    section = re.split(r"\n *(?:Returns|Raises|Yields|Attributes):", after)[0]
    if section.strip().startswith("As for"):
        return {"*"}
    return {name.lstrip("*") for found in _NAMED.findall(section) for name in found.split(", ")}


def problems(source: str, *, values: bool = False, names: str = "") -> list[str]:
    """What is missing from, or wooden in, the docstrings of a module."""
    found: list[str] = []
    for name, node in public(ast.parse(source)):
        if names and name.partition(".")[0] not in names.split():
            continue
        docstring = ast.get_docstring(node)
        if not docstring:
            found.append(f"{name}: no docstring")
            continue
        if _WOODEN.match(docstring):
            found.append(f"{name}: the first line must be a noun phrase or an imperative: {docstring[:40]!r}")
        if isinstance(node, ast.ClassDef) and (values or name in MADE):
            continue
        named = explained(docstring)
        if "*" not in named:
            found += [
                f"{name}: Args does not explain {each}" for each in parameters(node) if each not in named
            ]
    return found


@pytest.mark.parametrize("path", SOURCES)
def test_public_docstrings_are_complete(path: str) -> None:
    """Each parameter of each public class, function and method is in an `Args` section."""
    source = (PACKAGE / path).read_text(encoding="utf-8")
    assert problems(source, values=path in VALUES, names=SOURCES[path]) == []


@pytest.mark.parametrize("path", SOURCES)
def test_texts_of_attributes_say_their_subject(path: str) -> None:
    """`ID of the notification.`, and neither `Of the notification.` nor `Whether it …`."""
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    texts = [
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    assert [text[:60] for text in texts if _WOODEN.match(text)] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('def f(a: int) -> int:\n    """Return a."""\n', ["f: Args does not explain a"]),
        ('def f(a: int) -> int:\n    """Return a.\n\n    Args:\n        a: A number.\n    """\n', []),
        ('def f(*a: int) -> int:\n    """Return a.\n\n    Args:\n        *a: Numbers.\n    """\n', []),
        (
            'def f(a: int) -> int:\n    """Return a.\n\n    Returns:\n        a: It.\n    """\n',
            ["f: Args does not explain a"],
        ),
        ("def f() -> int: ...\n", ["f: no docstring"]),
        ("def _f(a: int) -> int: ...\n", []),
        (
            'class C:\n    """A C."""\n\n    def __init__(self, a: int) -> None: ...\n',
            ["C: Args does not explain a"],
        ),
        (
            'class C:\n    """A C."""\n\n    def g(self, a: int) -> None:\n        """Do it."""\n',
            ["C.g: Args does not explain a"],
        ),
        ('class C:\n    """A C."""\n\n    def g(self) -> None: ...\n', ["C.g: no docstring"]),
        (
            '@attrs.frozen\nclass C:\n    """A C."""\n\n    a: int\n    b: int\n    """A number."""\n',
            ["C: Args does not explain a"],
        ),
        (
            'def f() -> bool:\n    """Whether it works."""\n',
            ["f: the first line must be a noun phrase or an imperative: 'Whether it works.'"],
        ),
    ],
)  # fmt: skip
def test_a_planted_gap_is_found(source: str, found: list[str]) -> None:
    """Of a function, a class, a method and a value."""
    assert problems(source) == found
