"""What every run of the suite says at its end: how much of it saw a real Kafka, and what it did not run."""

from __future__ import annotations

import gc
import os
from typing import Final

import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import settings

from kafka_notify._worker import pair_assertions
from kafka_notify.testing import pytest_plugin
from kafka_notify.testing._kafka_distribution import KAFKA_VERSION
from tests.spread import check_grouped, processes, spread

os.environ["KAFKA_NOTIFY_DEBUG"] = "1"  # for the processes that tests start
pair_assertions.bind()

settings.register_profile("any-machine", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("any-machine")

REQUIRED: Final = any(
    os.environ.get(name, "") not in ("", "0") for name in ("CI", "KAFKA_NOTIFY_TEST_REQUIRE_KAFKA")
)
SOAK: Final = os.environ.get("KAFKA_NOTIFY_TEST_SOAK", "") not in ("", "0")
_KAFKA: Final = "ran on a real Kafka"


def pytest_configure(config: pytest.Config) -> None:
    """Have our fixtures also where the package is on the path, but not installed."""
    if not config.pluginmanager.is_registered(pytest_plugin):
        config.pluginmanager.register(pytest_plugin, pytest_plugin.__name__)
    config.pluginmanager.register(_Tally(config))


@pytest.hookimpl(optionalhook=True)  # pytest may run without xdist
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` starts."""
    return processes()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave more variants to `make soak`, and spread tests over processes, where there are several."""
    if not SOAK:
        more = [item for item in items if item.get_closest_marker("soak") is not None]
        items[:] = [item for item in items if item.get_closest_marker("soak") is None]
        config.hook.pytest_deselected(items=more)
    if hasattr(config, "workerinput"):
        spread(items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail where xdist has not read the groups; skip what an old Kafka does not have."""
    if hasattr(item.config, "workerinput") and item.config.option.loadgroup:
        check_grouped(item)
    if _on_kafka_with(item) == "consumer" and KAFKA_VERSION.startswith("3."):
        pytest.skip(f"Kafka {KAFKA_VERSION} has no group.protocol=consumer")


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Capture what this test logs: what an earlier one left behind says its last words before it."""
    gc.collect()
    return caplog


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    """Note tests on a real Kafka; where one is required, a skip of such a test is a failure."""
    report: pytest.TestReport = yield
    if item.get_closest_marker("kafka") is None:
        return report
    if report.skipped and not hasattr(report, "wasxfail"):
        if REQUIRED:
            report.outcome = "failed"
            report.longrepr = f"skipped, but a real Kafka is required here: {_reason(report)}"
    elif report.when == "call":
        report.user_properties.append((_KAFKA, "1"))
    return report


class _Tally:
    """Counts reports where they come together: in the process that was called, however many run the tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._ran: set[str] = set()
        self._skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One of a test."""
        if (_KAFKA, "1") in report.user_properties:
            self._ran.add(report.nodeid)
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped[report.nodeid] = _reason(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self):  # type: ignore[no-untyped-def]
        """Say it on the last lines, after pytest's own summary."""
        result = yield
        reporter: TerminalReporter | None = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and not self._config.option.collectonly:
            reporter.write_line(f"{len(self._ran)} tests ran on a real Apache Kafka")
            for test, reason in self._skipped.items():
                reporter.write_line(f"SKIPPED {test}: {reason}", yellow=True)
        return result


def _on_kafka_with(item: pytest.Item) -> object:
    """The group protocol of a test on a real Kafka that has it for a parameter."""
    if item.get_closest_marker("kafka") is None or not hasattr(item, "callspec"):
        return None
    return item.callspec.params.get("protocol")


def _reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")
