"""A run of this suite does not hide what it did not run."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TESTS = """
import pytest

@pytest.mark.kafka
def test_ran():
    pass

@pytest.mark.kafka
def test_without_kafka():
    pytest.skip("no Java here")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A suite with our conftest, of which one test runs and one is skipped."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("KAFKA_NOTIFY_TEST_REQUIRE_KAFKA", raising=False)
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile(TESTS)
    pytester.makeini("[pytest]\nmarkers = kafka: real\nasyncio_default_fixture_loop_scope = function\n")
    return pytester


def test_skip_is_said(suite: pytest.Pytester) -> None:
    """The last lines say how many tests ran on a real Kafka, and what was skipped, with the reason."""
    result = suite.runpytest_inprocess()
    result.assert_outcomes(passed=1, skipped=1)
    assert result.outlines[-2:] == [
        "1 tests ran on a real Apache Kafka",
        "SKIPPED test_skip_is_said.py::test_without_kafka: no Java here",
    ]


@pytest.mark.parametrize("variable", ["CI", "KAFKA_NOTIFY_TEST_REQUIRE_KAFKA"])
def test_skip_fails(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Where a real Kafka is required, a test that skips for want of it fails."""
    monkeypatch.setenv(variable, "1")
    result = suite.runpytest_inprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*a real Kafka is required here: *no Java here*"])
