"""The files that a broker starts from: its configuration and a formatted data directory."""

from __future__ import annotations

import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path


def write(
    directory: Path,
    *,
    node_id: int,
    cluster_id: str,
    port: int,
    controller_ports: Sequence[int],
    bootstrap_path: str,
    bootstrap_checkpoint: bytes,
    more_listeners: Sequence[str],
    config: Mapping[str, str],
) -> None:
    """Write `server.properties`, and below `log` the files of Kafka's storage tool, which would take a second itself.

    Args:
        controller_ports: Controller port of each node of the cluster, by node id.
        bootstrap_path: Where the storage tool writes the metadata of a new node, below `log`.
        bootstrap_checkpoint: What it writes, which is the same for every node.
        more_listeners: Listeners besides those for clients and controllers.
        config: Server properties that take precedence over the ones chosen here.
    """
    log_dir = directory / "log"
    bootstrap = log_dir / bootstrap_path
    bootstrap.parent.mkdir(parents=True)
    bootstrap.write_bytes(bootstrap_checkpoint)
    identity = {
        "version": "1",
        "cluster.id": cluster_id,
        "node.id": str(node_id),
        "directory.id": kafka_uuid(),
    }
    (log_dir / "meta.properties").write_text(_properties(identity))
    defaults = _server_config(node_id, port, controller_ports, log_dir)
    defaults["listeners"] = ",".join((defaults["listeners"], *more_listeners))
    (directory / "server.properties").write_text(_properties({**defaults, **config}))


def kafka_uuid() -> str:
    """Return a random id in the form in which Kafka writes ids."""
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _server_config(node_id: int, port: int, controller_ports: Sequence[int], log_dir: Path) -> dict[str, str]:
    brokers = len(controller_ports)
    replicas = str(min(3, brokers))
    in_sync = "2" if brokers >= 3 else "1"
    listeners = f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_ports[node_id]}"
    voters = ",".join(f"{node}@127.0.0.1:{voter_port}" for node, voter_port in enumerate(controller_ports))
    return {
        "process.roles": "broker,controller",
        "node.id": str(node_id),
        "listeners": listeners,
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": voters,
        "log.dirs": str(log_dir),
        "auto.create.topics.enable": "false",
        # Replicated where there are enough brokers.
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # Small, because these topics hold next to nothing and a broker's heap is 512 MB.
        "offsets.topic.num.partitions": "5",
        "transaction.state.log.num.partitions": "5",
        "share.coordinator.state.topic.num.partitions": "5",
        "log.cleaner.dedupe.buffer.size": "4194304",
        "log.index.size.max.bytes": "1048576",
        # Quick, so that new members and the deaths of members and brokers are noticed within seconds.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "group.consumer.assignment.interval.ms": "0",
        "group.consumer.min.heartbeat.interval.ms": "100",
        "group.consumer.heartbeat.interval.ms": "500",
        "group.consumer.min.session.timeout.ms": "1000",
        "group.consumer.session.timeout.ms": "6000",
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        "replica.fetch.backoff.ms": "100",
        "replica.fetch.wait.max.ms": "50",  # else the first write to a new partition takes half a second
        "controller.quorum.append.linger.ms": "0",
    }


def _properties(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())
