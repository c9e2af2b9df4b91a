"""All commands together, what they log, and how they end: each kind of trouble has an exit code of its own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Final

import click
from confluent_kafka import KafkaException

import kafka_notify
from kafka_notify.cli import demo, dlq, pauses, send, status, topics, work
from kafka_notify.cli._site import Refused
from kafka_notify.errors import ConfigError, InvalidNotification, NotifyError

FOUND: Final = 1
"""It looked, and something is wrong."""
USAGE: Final = 2
CONFIG: Final = 3
"""A setting, a name or a notification is wrong: nothing was done."""
CLUSTER: Final = 4
"""The brokers did not answer, or refused: what was done before that is done."""
REFUSED: Final = 5
"""It would have been unsafe: nothing was done."""
INTERRUPTED: Final = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(kafka_notify.__version__, prog_name="kafka-notify")
def app() -> None:
    """Operate kafka-notify: topics, workers, pauses, dead letters.

    The cluster is given by KAFKA_NOTIFY_BOOTSTRAP_SERVERS and its like (KAFKA_NOTIFY_SASL_PASSWORD is sasl.password),
    by --config FILE, or by --bootstrap; the later goes before the earlier. The topology is given by --topology or
    KAFKA_NOTIFY_CLI_TOPOLOGY.

    Exit codes: 0 done, 1 something is wrong, 2 usage, 3 configuration, 4 cluster, 5 refused as unsafe, 130
    interrupted.
    """


for command in (
    topics.topics,
    work.work,
    status.status,
    send.send,
    dlq.dlq,
    pauses.pause,
    pauses.resume,
    pauses.paused,
    demo.demo,
):
    app.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        code = app.main(args=list(arguments), prog_name="kafka-notify", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _failed("interrupted", INTERRUPTED)
    except Refused as e:
        return _failed(f"refused: {e}", REFUSED)
    except (ConfigError, InvalidNotification) as e:
        return _failed(str(e), CONFIG)
    except NotifyError as e:
        return _failed(str(e), CLUSTER)
    except KafkaException as e:
        return _failed(f"the brokers refused ({e.args[0].name()}: {e.args[0].str()})", CLUSTER)


def _failed(text: str, code: int) -> int:
    click.echo(f"kafka-notify: {text}", err=True)
    return code
