"""What the examples read from the environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.providers import failover, fcm_push, sendgrid_email, smtp_email, twilio_sms
from kafka_notify import Consumer
from kafka_notify.consumer import check_consumer
from kafka_notify.topology import Topology

TWILIO = {
    "TWILIO_ACCOUNT_SID": "AC0",
    "TWILIO_API_KEY": "SK0",
    "TWILIO_API_SECRET": "s3cret-1",
    "TWILIO_SENDER": "+15550100",
}
SENDGRID = {"SENDGRID_API_KEY": "s3cret-2", "SENDGRID_SENDER": "shop@example.com"}
SMTP = {"SMTP_HOST": "127.0.0.1", "SMTP_SENDER": "shop@example.com", "SMTP_PASSWORD": "s3cret-3"}
SENDERS: dict[str, tuple[Callable[[], Consumer], Topology, dict[str, str]]] = {
    "twilio": (twilio_sms.make_sender, twilio_sms.TOPOLOGY, TWILIO),
    "fcm": (fcm_push.make_sender, fcm_push.TOPOLOGY, {"GOOGLE_APPLICATION_CREDENTIALS": "key.json"}),
    "sendgrid": (sendgrid_email.make_sender, sendgrid_email.TOPOLOGY, SENDGRID),
    "smtp": (smtp_email.make_sender, smtp_email.TOPOLOGY, SMTP),
    "failover": (failover.make_sender, failover.TOPOLOGY, {**SENDGRID, **SMTP}),
}
OPTIONAL = {"SMTP_PASSWORD"}


@pytest.fixture
def environment(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    for _, _, names in SENDERS.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    key = tmp_path / "key.json"
    key.write_text(json.dumps({"private_key": "s3cret-4"}))
    values = {k: str(key) if v == "key.json" else v for k, v in SENDERS[request.param][2].items()}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


@pytest.mark.parametrize(
    ("name", "environment"), [(name, name) for name in SENDERS], indirect=["environment"]
)
def test_from_environment(name: str, environment: dict[str, str]) -> None:
    """Each example makes a consumer that a worker takes, from the environment, and shows no secret of it."""
    make, topology, _ = SENDERS[name]

    consumer = make()

    check_consumer(consumer, topology)
    assert "s3cret" not in repr(vars(consumer))


@pytest.mark.parametrize(
    ("name", "environment"), [(name, name) for name in SENDERS], indirect=["environment"]
)
def test_missing_setting(name: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that is missing stops the process at once, by name."""
    for variable in environment.keys() - OPTIONAL:
        with monkeypatch.context() as without:
            without.delenv(variable)
            with pytest.raises(SystemExit, match=variable):
                SENDERS[name][0]()


def test_unknown_tls() -> None:
    """A misspelt SMTP_TLS is no connection without TLS."""
    with pytest.raises(SystemExit, match="SMTP_TLS must be one of starttls, implicit, none"):
        smtp_email.SmtpSettings.from_env({**SMTP, "SMTP_TLS": "tls"})
