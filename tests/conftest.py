"""What every run of the suite says at its end: how much of it saw a real Kafka, and what it did not run."""

from __future__ import annotations

import os
from typing import Final

import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import settings

from kafka_notify.testing import pytest_plugin

settings.register_profile("any-machine", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("any-machine")

REQUIRED: Final = any(
    os.environ.get(name, "") not in ("", "0") for name in ("CI", "KAFKA_NOTIFY_TEST_REQUIRE_KAFKA")
)
_ran: Final = pytest.StashKey[set[str]]()
_skipped: Final = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Have our fixtures also where the package is on the path, but not installed."""
    if not config.pluginmanager.is_registered(pytest_plugin):
        config.pluginmanager.register(pytest_plugin, pytest_plugin.__name__)
    config.stash[_ran] = set()
    config.stash[_skipped] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Count tests on a real Kafka; where one is required, a skip of such a test is a failure."""
    report: pytest.TestReport = yield
    kafka = item.get_closest_marker("kafka") is not None
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if kafka and REQUIRED:
            report.outcome = "failed"
            report.longrepr = f"skipped, but a real Kafka is required here: {reason}"
        else:
            item.config.stash[_skipped][item.nodeid] = reason
    elif kafka and report.when == "call":
        item.config.stash[_ran].add(item.nodeid)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session):  # type: ignore[no-untyped-def]
    """Say it on the last lines, after pytest's own summary."""
    result = yield
    reporter: TerminalReporter | None = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not session.config.option.collectonly:
        reporter.write_line(f"{len(session.config.stash[_ran])} tests ran on a real Apache Kafka")
        for test, reason in session.config.stash[_skipped].items():
            reporter.write_line(f"SKIPPED {test}: {reason.removeprefix('Skipped: ')}", yellow=True)
    return result
