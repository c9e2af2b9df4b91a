"""The names users import: complete, documented and typed."""

from __future__ import annotations

import importlib
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
    Producer PendingSend Consumer Worker run Notification Category Topology Lane
    Receipt Attempt Send Skip Defer Verdict DeadLetter
    RetryPolicy Ordering RateLimit CircuitBreaker
    NotifyError ConfigError InvalidNotificationError QueueFullError ProduceError
    DeliveryError TransientError ThrottledError UnknownOutcomeError PermanentError InvalidRecipientError
    ProviderUnavailableError classify_exception classify_http classify_smtp
    create_topics check_topics config_from_env Config ConfigValue Seconds
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
    """The names of the contract are exported, and no others."""
    assert set(kafka_notify.__all__) == CONTRACT


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


@pytest.mark.parametrize(("name", "module"), sorted(kafka_notify._MOVED.items()))
def test_a_name_that_moved_says_where_it_is(name: str, module: str) -> None:
    """What the text says to write works; `from` and attribute alike."""
    line = f"from kafka_notify.{module} import {name}"
    for old in (f"from kafka_notify import {name}", f"import kafka_notify; kafka_notify.{name}"):
        with pytest.raises(ImportError, match=f"^{name} is in kafka_notify.{module}: {line}$"):
            exec(old)  # noqa: S102
    exec(line)  # noqa: S102
    home = importlib.import_module(f"kafka_notify.{module}")
    assert name in getattr(home, "__all__", [name])


def test_a_name_that_never_was_is_an_attribute_error() -> None:
    """`hasattr` works, and `from` says what Python says."""
    assert not hasattr(kafka_notify, "Retyr")
    with pytest.raises(ImportError, match="cannot import name 'Retyr'"):
        exec("from kafka_notify import Retyr")  # noqa: S102


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
