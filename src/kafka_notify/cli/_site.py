"""What every command is told: which cluster, which topology, and whether to answer in JSON."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click
from rich import box
from rich.console import Console
from rich.table import Table

from kafka_notify._config import ConfigValue, config_from_env
from kafka_notify.errors import ConfigError, NotifyError
from kafka_notify.topology import Topology

F = TypeVar("F", bound=Callable[..., Any])


class Refused(NotifyError):
    """Not done, because it would break a promise; the text says what to do instead."""


@attrs.frozen
class Site:
    """Where a command works, and how it answers."""

    config: Mapping[str, ConfigValue] = attrs.field(repr=False)  # it holds secrets
    topology: Topology
    json: bool

    @property
    def servers(self) -> str:
        """The cluster's address, for a person who should see where this happens."""
        return str(self.config.get("bootstrap.servers", ""))

    def say(self, text: str = "") -> None:
        """Tell a person; nothing when the answer is JSON."""
        if not self.json:
            click.echo(text)

    def answer(self, value: object) -> None:
        """Print one JSON document on a line of its own, when the answer is JSON."""
        if self.json:
            click.echo(json.dumps(value, ensure_ascii=False))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
        """Print a table for a person; nothing when the answer is JSON."""
        if self.json:
            return
        table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
        for column in columns:
            table.add_column(column, justify="right" if column.startswith(">") else "left", overflow="fold")
            table.columns[-1].header = column.lstrip(">")
        for row in rows:
            table.add_row(*("" if cell is None else str(cell) for cell in row))
        # a pipe has no width: give it as much as a line of a log takes
        Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False).print(table)


def with_site(command: F) -> F:
    """Give a command a `Site` as its first argument, and the options that describe it."""

    @click.option(
        "--config",
        "config_file",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="librdkafka properties, key=value, one to a line.",
    )
    @click.option("--bootstrap", metavar="HOST:PORT,...", help="bootstrap.servers.")
    @click.option(
        "--topology",
        "topology_at",
        metavar="MODULE:ATTR",
        envvar="KAFKA_NOTIFY_CLI_TOPOLOGY",
        help="A Topology, or what returns one. By default Topology.default().",
    )
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    @functools.wraps(command)
    def wrapped(
        config_file: Path | None,
        bootstrap: str | None,
        topology_at: str | None,
        as_json: bool,
        **options: Any,
    ) -> Any:
        config = config_from_env()
        if config_file is not None:
            config |= read_properties(config_file)
        if bootstrap:
            config.pop("metadata.broker.list", None)
            config["bootstrap.servers"] = bootstrap
        if not {"bootstrap.servers", "metadata.broker.list"} & config.keys():
            raise ConfigError(
                "which cluster? give --bootstrap HOST:PORT, --config FILE, or KAFKA_NOTIFY_BOOTSTRAP_SERVERS"
            )
        topology = Topology.default() if topology_at is None else load_topology(topology_at)
        return command(Site(config, topology, as_json), **options)

    return wrapped  # type: ignore[return-value]


def read_properties(path: Path) -> dict[str, ConfigValue]:
    """The properties of a file in librdkafka's form; `#` begins a comment line.

    Raises:
        ConfigError: A line is none, or a property stands twice; the text names the line, never its content.
    """
    found: dict[str, ConfigValue] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ConfigError(f"{path}:{number}: not of the form name=value")
        if name in found:
            raise ConfigError(f"{path}:{number}: {name} is given twice")
        found[name] = value.strip()
    return found


def load(at: str, what: str) -> Any:
    """The object that `module:attribute` names; modules are looked for in the current directory, too.

    Raises:
        ConfigError: There is none.
    """
    module, colon, attribute = at.partition(":")
    if not colon or not module or not attribute:
        raise ConfigError(
            f"{what} is given as MODULE:NAME, for example myapp.notifications:{what}; not {at!r}"
        )
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name is None or not (module == e.name or module.startswith(f"{e.name}.")):
            raise  # something that the module itself needs: the traceback says where
        raise ConfigError(f"{what}: there is no module {module!r} here or on PYTHONPATH") from None
    try:
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError:
        raise ConfigError(f"{what}: the module {module!r} has no {attribute!r}") from None
    return found


def load_topology(at: str) -> Topology:
    """The topology that `module:attribute` names, or what it returns.

    Raises:
        ConfigError: It is none.
    """
    found = load(at, "TOPOLOGY")
    topology = found() if callable(found) else found
    if not isinstance(topology, Topology):
        raise ConfigError(f"{at} is a {type(topology).__name__}, not a Topology")
    return topology
