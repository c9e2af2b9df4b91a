"""Refusals by the brokers, for people: which right is missing, or what is wrong with the credentials."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

from kafka_notify._kafka import tls as _tls

RIGHTS: Final = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
"""Codes for a missing right."""
_CREDENTIALS: Final = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL}
)
GRANT: Final = 'grant it (docs/operations.md, "Access rights")'


def is_refusal(error: KafkaError) -> bool:
    """Return whether the brokers refuse this client or its request, so that waiting does not help."""
    return error.code() in RIGHTS or error.code() in _CREDENTIALS or _tls.is_refusal(error)


def is_missing_right(error: KafkaError) -> bool:
    """Return whether the error is about a missing right."""
    return error.code() in RIGHTS


def why_not(name: str, operation: str, resource: str) -> str:
    """Return the sentence of `told`, for an error of which only the name is known."""
    if not name.endswith("_AUTHORIZATION_FAILED"):
        return name
    return f"the right to {operation} on {resource} is missing ({name}); {GRANT}"


def told(error: KafkaError, operation: str, resource: str) -> str:
    """A sentence that says what was refused, and what to do.

    Args:
        error: A refusal, or any other error, which is quoted.
        operation: The operation that was requested, as Kafka's own tools name it: `Read`, `DescribeConfigs`.
        resource: Its resource: `topic notif.dlq`, `group notif.high_priority.sms`, `the cluster`.
    """
    if tls := _tls.named(error):
        return f"{tls} ({error.name()})"
    if error.code() in _CREDENTIALS:
        return (
            f"the brokers refuse the credentials ({error.name()}: {error.str()}); check sasl.username, sasl.password, "
            "the certificates and their dates"
        )
    if error.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
        resource = "the cluster"
    if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED and not resource.startswith("group "):
        resource = "the group of this client"
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED and resource.startswith("group "):
        resource = "a topic of this client"
    if error.code() in RIGHTS:
        return why_not(error.name(), operation, resource)
    return f"{resource}: {error.name()}: {error.str()}"
