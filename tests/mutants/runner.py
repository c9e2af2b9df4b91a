"""Runs the tests of each mutant in a copy of the project. The working tree is never changed.

Each run is a fork of this process, which has imported pytest and what it needs, and nothing of the project: a run then
costs little more than its tests. The copy keeps its bytecode, so that only the changed file is compiled again.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import attrs
import pytest

from tests.mutants.board import ROOT, Mutant

COPIED: Final = ("src", "tests", "examples", "docs", "pyproject.toml", "README.md", "CHANGELOG.md")
PRELOADED: Final = (
    "confluent_kafka",
    "hypothesis.stateful",
    "pytest_asyncio",
    "asyncio",
    "typing_extensions",
)
PATIENCE: Final = 900.0
"""Seconds for the tests of one mutant; with more it counts as not caught."""


@attrs.frozen
class Run:
    """The result of some tests."""

    failed: frozenset[str]
    passed: frozenset[str]
    error: str
    """Why there is no result; empty when there is one."""


@attrs.frozen
class Verdict:
    """What became of one mutant."""

    mutant: Mutant
    survived: tuple[str, ...]
    """Those of its tests that did not fail."""
    error: str = ""
    """Why nothing is known."""

    @property
    def is_caught(self) -> bool:
        """True when each of its tests failed."""
        return not self.survived and not self.error


class Recorder:
    """A pytest plugin that records how each test ended, and spares hypothesis its search for the smallest example."""

    def __init__(self) -> None:
        self.failed: set[str] = set()
        self.passed: set[str] = set()
        self.error = ""

    def pytest_sessionstart(self) -> None:
        """Stop at the first failing example."""
        from hypothesis import Phase, settings

        settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate])
        settings.load_profile("mutants")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the result of a test. A failed fixture is an error: it says nothing about the test."""
        name = report.nodeid.partition("[")[0]
        if report.when == "call":
            (self.failed if report.failed else self.passed).add(name)
        elif report.failed:
            self.error = f"{report.nodeid}: {report.when} failed"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note that a file could not be read: a mutant that breaks an import is no mutant."""
        if report.failed:
            self.error = f"{report.nodeid}: {report.longreprtext[-300:]}"

    def results(self) -> tuple[list[str], list[str], str]:
        """Return the failed tests, those that passed, and why there is no result."""
        return sorted(self.failed), sorted(self.passed - self.failed), self.error


class Workshop:
    """A copy of the project, in which one mutant after the other is tried."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._changes = 0

    def judge(self, mutant: Mutant) -> Verdict:
        """Run the tests of a mutant with its defect."""
        path = self.root / "src" / "kafka_notify" / mutant.file
        before = mutant.apply(self.root)
        self._touch(path)
        try:
            ran = self.run(mutant.tests)
        finally:
            path.write_text(before, encoding="utf-8")
            self._touch(path)
        return Verdict(mutant, tuple(sorted(ids(mutant.tests) - ran.failed)), ran.error)

    def run(self, tests: Iterable[str]) -> Run:
        """Run tests of the copy as it is."""
        context = multiprocessing.get_context("fork")
        reads, writes = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(self.root, sorted(ids(tests)), writes), daemon=True)
        process.start()
        writes.close()
        error = f"no answer within {PATIENCE:g} s"
        failed: Iterable[str] = ()
        passed: Iterable[str] = ()
        if reads.poll(PATIENCE):
            try:
                failed, passed, error = reads.recv()
            except EOFError:
                error = "the run ended without an answer"
        process.kill()
        process.join()
        return Run(frozenset(failed), frozenset(passed), error)

    def _touch(self, path: Path) -> None:
        """Give a file a new time, by which Python recognises stale bytecode."""
        self._changes += 1
        os.utime(path, (self._changes, self._changes))


@contextlib.contextmanager
def workshop(root: Path = ROOT) -> Iterator[Workshop]:
    """A workshop with a copy of the project, which is removed in the end."""
    if any(name.partition(".")[0] == "kafka_notify" for name in sys.modules):
        raise RuntimeError("start it as a process of its own: `python -m tests.mutants`")
    for name in PRELOADED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder).resolve() / "copy"
        copy.mkdir()
        for name in COPIED:
            if (root / name).is_dir():
                shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(root / name, copy / name)
        yield Workshop(copy)


def judge_all(mutants: Iterable[Mutant], shop: Workshop, told: Callable[[Verdict], object]) -> list[Verdict]:
    """Judge mutants, after their tests have passed without any.

    Args:
        mutants: The mutants.
        shop: Where they are tried.
        told: Called with each verdict as soon as it is known.

    Raises:
        RuntimeError: A test fails without a mutant, or does not exist.
    """
    mutants = list(mutants)
    tests = ids(test for mutant in mutants for test in mutant.tests)
    ran = shop.run(test for mutant in mutants for test in mutant.tests)
    if ran.error or ran.failed or (tests - ran.passed):
        wrong = ran.error or ", ".join(sorted(ran.failed | (tests - ran.passed)))
        raise RuntimeError(f"without a mutant these tests do not pass: {wrong}")
    verdicts = []
    for mutant in mutants:
        verdicts.append(shop.judge(mutant))
        told(verdicts[-1])
    return verdicts


def ids(tests: Iterable[str]) -> set[str]:
    """Return the IDs that pytest gives these tests."""
    return {f"tests/{test}" for test in tests}


def _child(root: Path, tests: list[str], writes: Connection) -> None:
    """Run tests in a fork, in the copy."""
    os.chdir(root)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(root / ".hypothesis")
    sys.dont_write_bytecode = False
    sys.path[:] = [str(root / "src"), str(root), *(p for p in sys.path if p not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    recorder = Recorder()
    said = io.StringIO()
    options = ["-q", "--tb=no", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # what is imported already
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            pytest.main([*options, *tests], plugins=[recorder])
        package = importlib.import_module("kafka_notify").__file__ or ""
        if not package.startswith(str(root)):
            recorder.error = f"the tests ran on {package}, not on the copy"
        elif not (recorder.error or recorder.failed or recorder.passed):
            recorder.error = said.getvalue()[-500:] or "nothing was run"
    except BaseException as e:  # of the mutant's import
        recorder.error = f"{type(e).__name__}: {e}"
    writes.send(recorder.results())  # no class of this module, as a fork has imported it again
    writes.close()
    os._exit(0)
