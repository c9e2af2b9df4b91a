"""The check of `make types` that public types are complete finds one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.check_types_complete import incomplete


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(a: int) -> int:\n    return a\n", []),
        (
            "def f(a, b: int) -> int:\n    return b\n",
            ['planted.f: Type annotation for parameter "a" is missing'],
        ),
        ("def f(a: int):\n    return str(a)\n", ["planted.f: Return type annotation is missing"]),
        ("class C:\n    def __init__(self) -> None:\n        self.a = str(1)\n", ["planted.C.a: "]),
        ("def _f(a):\n    return a\n\n\nlimit: int = 1\n", []),
    ],
)
def test_a_planted_public_name_without_a_type_is_found(tmp_path: Path, source: str, found: list[str]) -> None:
    """Of a parameter, a result and an attribute; private names are not looked at."""
    package = tmp_path / "planted"
    package.mkdir()
    (package / "py.typed").touch()
    (package / "__init__.py").write_text(source, encoding="utf-8")
    said = incomplete(tmp_path, "planted")
    assert len(said) == len(found)
    assert all(text.startswith(begin) for text, begin in zip(said, found, strict=True)), said
