"""The names users import: complete, documented and typed."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import resources
from types import ModuleType
from typing import get_origin

import pytest

import kafka_notify

CONTRACT = frozenset(
    """
    Category Notification Codec CodecContext
    Lane Topology Finding RecordMetadata PendingSend Producer
    RetryPolicy Ordering Receipt Attempt Send Skip Defer Verdict Consumer Worker run
    Sent Retry Dead Skipped Outcome SendContext Middleware
    NotifyError InvalidNotificationError ConfigError QueueFullError ProduceError CodecUnavailableError
    DeliveryError TransientError ThrottledError UnknownOutcomeError PermanentError InvalidRecipientError
    ProviderUnavailableError classify_http classify_smtp
    DeadLetter RedriveReport DeadLetters
    config_from_env Event WorkerStats Health create_topics check_topics
    """.split()
)
"""Removing or renaming one of these breaks users: it needs a major version."""

PUBLIC = {name: getattr(kafka_notify, name, None) for name in kafka_notify.__all__}
DOCUMENTED = [
    name
    for name, value in PUBLIC.items()
    # on Python 3.10 an alias such as Mapping[str, int] passes for a class
    if get_origin(value) is None and (inspect.isclass(value) or inspect.isfunction(value))
]


def test_contract_is_exported() -> None:
    """Every name of the contract is exported."""
    assert set(kafka_notify.__all__) >= CONTRACT


def test_all_is_sorted() -> None:
    """`__all__` is sorted and holds no name twice."""
    assert list(kafka_notify.__all__) == sorted(set(kafka_notify.__all__))


def test_all_is_complete() -> None:
    """Every public name that can be reached on the package is in `__all__`, submodules apart."""
    reachable = {
        name
        for name, value in vars(kafka_notify).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, ModuleType)
    }
    assert reachable <= set(kafka_notify.__all__)


@pytest.mark.parametrize("name", kafka_notify.__all__)
def test_name_resolves(name: str) -> None:
    """Every name in `__all__` resolves to something."""
    assert getattr(kafka_notify, name) is not None


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented(name: str) -> None:
    """Every public class, its public methods and properties, and every public function has a docstring of its own."""
    value = PUBLIC[name]
    # A dataclass without a docstring gets its signature as one.
    written = (value.__doc__ or "").strip()
    assert written
    assert not written.startswith(f"{name}(")
    if inspect.isclass(value):
        assert _undocumented(value) == []


@pytest.mark.parametrize("name", DOCUMENTED)
def test_home(name: str) -> None:
    """Every public class and function was defined in this package."""
    home: str = PUBLIC[name].__module__
    assert home.partition(".")[0] == "kafka_notify"


@pytest.mark.parametrize(
    ("module", "needed", "extra"),
    [
        ("prometheus", "prometheus_client", "prometheus"),
        ("otel", "opentelemetry", "otel"),
        ("redis", "redis", "redis"),
    ],
)
def test_an_adapter_without_its_extra_says_what_to_install(module: str, needed: str, extra: str) -> None:
    """One line names the extra."""
    code = f"import sys; sys.modules['{needed}'] = None; import kafka_notify.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1].endswith(f"pip install 'kafka-notify[{extra}]'")


def test_typed_marker() -> None:
    """The package ships `py.typed`, so that type checkers read its annotations."""
    assert resources.files(kafka_notify).joinpath("py.typed").is_file()


def _undocumented(cls: type[object]) -> list[str]:
    return [
        name
        for name, member in vars(cls).items()
        if not name.startswith("_")
        and (inspect.isroutine(member) or isinstance(member, property))
        and not inspect.getdoc(getattr(cls, name))
    ]
