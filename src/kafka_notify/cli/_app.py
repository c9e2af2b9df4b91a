"""All commands together, what they log, and how they end: each kind of trouble has an exit code of its own."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import click
from confluent_kafka import KafkaException

import kafka_notify
from kafka_notify._base.text import printable_lines
from kafka_notify.cli import demo, dlq, pauses, send, status, topics, work
from kafka_notify.cli._site import Refused
from kafka_notify.errors import ConfigError, InvalidNotificationError, NotifyError

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
BROKEN_PIPE: Final = 141
"""Who reads the output has gone: as a shell says of a command that SIGPIPE ended."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(kafka_notify.__version__, prog_name="kafka-notify")
def app() -> None:
    """Operate kafka-notify: topics, workers, pauses, dead letters.

    The cluster is given by KAFKA_NOTIFY_BOOTSTRAP_SERVERS and its like (KAFKA_NOTIFY_SASL_PASSWORD is sasl.password),
    by --config FILE, or by --bootstrap; a later source overrides an earlier one. The topology is given by --topology or
    KAFKA_NOTIFY_CLI_TOPOLOGY.

    Exit codes: 0 done, 1 something is wrong, 2 usage, 3 configuration, 4 cluster or a defect, 5 refused as unsafe,
    130 interrupted, 141 nobody reads the output. KAFKA_NOTIFY_CLI_TRACEBACK=1 shows the traceback of what failed.
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
        if "_KAFKA_NOTIFY_COMPLETE" in os.environ:  # a shell asks for completions
            app.main(args=list(arguments), prog_name="kafka-notify")
        # not `app.main`, which ends a closed pipe with the code of "something is wrong"
        with app.make_context("kafka-notify", list(arguments)) as context:
            code = app.invoke(context)
        sys.stdout.flush()  # so that a closed pipe is met here
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
    except (ConfigError, InvalidNotificationError) as e:
        return _failed(str(e), CONFIG)
    except NotifyError as e:
        return _failed(str(e), CLUSTER)
    except KafkaException as e:
        return _failed(f"the brokers refused ({e.args[0].name()}: {e.args[0].str()})", CLUSTER)
    except BrokenPipeError:
        # the interpreter flushes once more at its end: let that go nowhere
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as e:  # a defect of ours: the text of a foreign exception may quote anything
        at = traceback.extract_tb(e.__traceback__)[-1]
        where = f"{at.filename}:{at.lineno}"
        return _failed(
            f"failed on {type(e).__name__} at {where}, which should not happen: please report it with "
            "the traceback that KAFKA_NOTIFY_CLI_TRACEBACK=1 shows",
            CLUSTER,
        )


def _failed(text: str, code: int) -> int:
    if os.environ.get("KAFKA_NOTIFY_CLI_TRACEBACK") and code != INTERRUPTED:
        traceback.print_exc()
    click.echo(f"kafka-notify: {printable_lines(text)}", err=True)
    return code
