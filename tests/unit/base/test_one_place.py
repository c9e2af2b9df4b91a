"""Error codes are written down in one module, and so are the names of topics and groups."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kafka_notify
from kafka_notify._base import codes, names

PACKAGE = Path(kafka_notify.__file__).parent
CODES = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, str)}


def texts(tree: ast.AST) -> Iterator[str]:
    """The texts of a module that are values: strings, and the beginnings of f-strings, but no docstrings."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(node, ast.Expr) or not isinstance(child, ast.Constant):
                continue
            if isinstance(child.value, str):
                yield child.value


def is_code(text: str) -> bool:
    """Whether a text is a code, or begins a family of them; "timeout" and the like are words as well."""
    return (text in CODES and not text.isalpha()) or text in codes.FAMILIES


def is_part_of_a_name(text: str) -> bool:
    """Whether a text is what topics are told apart by."""
    return any(part in text for part in (".retry.", ".dlq", ".control")) and " " not in text


def written(root: Path, what: Callable[[str], bool], home: str) -> set[str]:
    """The modules other than `home` that write such a text, each with the text."""
    return {
        f"{path.relative_to(root)}: {text}"
        for path in root.rglob("*.py")
        if path.stem != home
        for text in texts(ast.parse(path.read_text(encoding="utf-8")))
        if what(text)
    }


def test_codes_are_written_in_one_module() -> None:
    assert written(PACKAGE, is_code, Path(codes.__file__).stem) == set()


def test_names_of_topics_are_made_and_read_in_one_module() -> None:
    assert written(PACKAGE, is_part_of_a_name, Path(names.__file__).stem) == set()


@pytest.mark.parametrize("planted", ['code = "no_receipt"', 'f"codec.{name}"', 'f(g["bad_header."])'])
def test_a_planted_code_is_found(tmp_path: Path, planted: str) -> None:
    (tmp_path / "a.py").write_text(f'"""no_receipt"""\n{planted}\n', encoding="utf-8")
    assert len(written(tmp_path, is_code, "codes")) == 1
    assert written(tmp_path, is_code, "a") == set()


@pytest.mark.parametrize("planted", ['f"{prefix}.retry.{lane}"', 'topic.endswith(".dlq")'])
def test_a_planted_name_is_found(tmp_path: Path, planted: str) -> None:
    (tmp_path / "a.py").write_text(f"{planted}\n", encoding="utf-8")
    assert len(written(tmp_path, is_part_of_a_name, "names")) == 1


ROOMS_OF_A_WORKER = ("_fetch", "_settle", "_send", "_worker", "_decision", "_partition")
REAL = frozenset(
    """time.time time.time_ns time.monotonic time.sleep time.perf_counter threading.Event threading.Thread
    threading.Condition threading.Semaphore queue.SimpleQueue queue.Queue uuid.uuid4 futures.wait
    datetime.now""".split()
)
"""What has a place in `Runtime`, by the last two names."""


def real_time(root: Path) -> set[str]:
    """The calls in the rooms of a worker that the simulation could not replace."""
    return {
        f"{path.relative_to(root)}: {called}"
        for room in ROOMS_OF_A_WORKER
        for path in (root / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        if (called := ".".join(ast.unparse(node.func).split(".")[-2:])) in REAL
    }


def test_a_worker_takes_time_threads_and_waits_from_its_runtime() -> None:
    assert real_time(PACKAGE) == set()


@pytest.mark.parametrize(
    "planted", ["time.sleep(1)", "x = dt.datetime.now(UTC)", "concurrent.futures.wait([f])"]
)
def test_a_planted_call_of_real_time_is_found(tmp_path: Path, planted: str) -> None:
    (tmp_path / "_fetch").mkdir()
    (tmp_path / "_fetch" / "a.py").write_text(f"{planted}\n", encoding="utf-8")
    assert len(real_time(tmp_path)) == 1
