"""A broker with a TLS listener for each thing that can be wrong with one."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kafka_notify.testing import LocalKafka
from tests.kafka.secured import free_port

LISTENERS: Final = ("good", "expired", "elsewhere", "unknown", "mutual")
"""A certificate that is right, one that has expired, one of another host, one that nobody knows who signed, and a
right one on a listener that asks for the client's."""


@attrs.frozen
class Authority:
    """Signs certificates for this test alone."""

    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def sign(self, host: str, path: Path, *, days: int = 30) -> None:
        """Write a key and its certificate, valid from long ago until in so many days."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            names: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            names = x509.DNSName(host)
        made = (
            _certificate(host, self.name, key, days)
            .add_extension(x509.SubjectAlternativeName([names]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(private + _pem(made))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=60))
        .not_valid_after(now + dt.timedelta(days=days))
    )


def authority(name: str, path: Path) -> Authority:
    """A new one; its own certificate is written to `path`."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        _certificate(name, name, key, 30)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(_pem(made))
    return Authority(name, key, made)


@attrs.frozen
class Tls:
    """A running broker."""

    kafka: LocalKafka
    addresses: dict[str, str]
    """By listener; `plain` is without TLS."""
    directory: Path

    def client(self, listener: str, protocol: str = "ssl", certificate: str = "") -> dict[str, Any]:
        """Properties of a client that trusts the one authority, perhaps with a certificate of its own."""
        config = {"bootstrap.servers": self.addresses[listener], "security.protocol": protocol}
        if protocol == "ssl":
            config["ssl.ca.location"] = str(self.directory / "ca.pem")
        if certificate:
            config["ssl.certificate.location"] = str(self.directory / f"{certificate}.pem")
            config["ssl.key.location"] = str(self.directory / f"{certificate}.pem")
        return config


@contextmanager
def tls(directory: Path) -> Generator[Tls]:
    """One broker with all of the listeners, and certificates `client` and `late` (expired) for clients."""
    ours = authority("ours", directory / "ca.pem")
    theirs = authority("theirs", directory / "theirs.pem")
    ours.sign("127.0.0.1", directory / "good.pem")
    ours.sign("127.0.0.1", directory / "expired.pem", days=-1)
    ours.sign("kafka.elsewhere.example", directory / "elsewhere.pem")
    theirs.sign("127.0.0.1", directory / "unknown.pem")
    ours.sign("127.0.0.1", directory / "mutual.pem")
    ours.sign("client", directory / "client.pem")
    ours.sign("client", directory / "late.pem", days=-1)
    ports = {name: free_port() for name in LISTENERS}
    protocols = ",".join(f"{name.upper()}:SSL" for name in LISTENERS)
    config = {
        "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{protocols}",
        "inter.broker.listener.name": "PLAINTEXT",
    }
    for name in LISTENERS:
        of = f"listener.name.{name}.ssl"
        config[f"{of}.keystore.type"] = config[f"{of}.truststore.type"] = "PEM"
        config[f"{of}.keystore.location"] = str(directory / f"{name}.pem")
        config[f"{of}.truststore.location"] = str(directory / "ca.pem")
    config["listener.name.mutual.ssl.client.auth"] = "required"
    more = [f"{name.upper()}://127.0.0.1:{port}" for name, port in ports.items()]
    with LocalKafka(config=config, more_listeners=more) as kafka:
        addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        yield Tls(kafka, {**addresses, "plain": kafka.bootstrap_servers}, directory)
