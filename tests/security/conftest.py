"""Fixtures of the security tests: a secured broker, certificates, and environments that use them.

All tests share one Apache Kafka. Its plaintext listener is for the administrator; the others require SCRAM-SHA-512 over
TLS or a client certificate, or present an invalid certificate.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from apache_kafka import ApacheKafka
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization
from kafka_distribution import Distribution

from k2eg_rx.settings import FOLDER_VARIABLE, Settings, load_settings

PASSWORD = "correct-Horse-Battery-41"  # of every user; must not appear in any output
WRONG_PASSWORD = "stale-Paper-Clip-17"
PASSWORD_VARIABLE = "K2EG_TEST_PASSWORD"
HOST = "127.0.0.1"
PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
RUN_LIMIT = 240.0  # seconds for a run of the command line on a busy machine

SASL, MTLS, EXPIRED, ELSEWHERE = "SASL", "MTLS", "EXPIRED", "ELSEWHERE"
_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"

_silent = logging.getLogger("k2eg-tests.secured-kafka")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
TEST_TIMEOUT = 900.0  # seconds for a whole test; a single wait fails much earlier


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Extends the timeout of these tests, which start a broker and processes on machines that may be busy."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


class Certificates:
    """A trusted certificate authority, another one, and certificates as PEM files.

    Attributes:
        folder: Has ``NAME.crt``, ``NAME.key`` and ``NAME.pem`` (key and chain) of each certificate; ``site.pem`` is
            the trusted authority, ``other.pem`` the other one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        site, other = trustme.CA(organization_name="Site"), trustme.CA(organization_name="Elsewhere")
        site.cert_pem.write_to_path(str(folder / "site.pem"))
        other.cert_pem.write_to_path(str(folder / "other.pem"))
        past = datetime.now(UTC) - timedelta(days=1)
        self._store("broker", site.issue_cert(HOST))
        self._store("expired-broker", site.issue_cert(HOST, not_after=past))
        self._store("other-name", site.issue_cert("kafka.example.org"))
        self._store("operator", site.issue_cert("operator@example.org", common_name="operator"))
        self._store("expired-operator", site.issue_cert("operator@example.org", common_name="operator", not_after=past))
        self._store("stranger", other.issue_cert("operator@example.org", common_name="operator"))
        own = trustme.CA(organization_name="Self")
        (folder / "self-signed.pem").write_bytes(own.private_key_pem.bytes() + own.cert_pem.bytes())

    def _store(self, name: str, certificate: trustme.LeafCert) -> None:
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        private = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
        key = private.private_bytes(  # PKCS #8, the only form that Java reads
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / f"{name}.crt").write_bytes(chain)
        (self.folder / f"{name}.key").write_bytes(key)
        (self.folder / f"{name}.pem").write_bytes(key + chain)

    def path(self, name: str) -> str:
        """Returns the path of a file."""
        return str(self.folder / name)


def _broker_properties(certificates: Certificates) -> dict[str, str]:
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": certificates.path("broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": certificates.path("site.pem"),
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.mtls.ssl.client.auth": "required",
        "listener.name.mtls.ssl.principal.mapping.rules": "RULE:^CN=([^,]+),.*$/$1/,DEFAULT",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:operator",
    }
    for listener in (SASL, EXPIRED, ELSEWHERE):
        properties[f"listener.name.{listener.lower()}.scram-sha-512.sasl.jaas.config"] = _LOGIN
    for listener, name in ((EXPIRED, "expired-broker.pem"), (ELSEWHERE, "other-name.pem")):
        properties[f"listener.name.{listener.lower()}.ssl.keystore.type"] = "PEM"
        properties[f"listener.name.{listener.lower()}.ssl.keystore.location"] = certificates.path(name)
    return properties


class SecuredKafka:
    """A secured broker and its administration."""

    def __init__(self, broker: ApacheKafka) -> None:
        self.broker = broker
        self._admin: Any = AdminClient({"bootstrap.servers": broker.address}, logger=_silent)
        self.add_user("operator")

    def address(self, listener: str) -> str:
        """Returns the address of a listener."""
        return self.broker.address_of(listener)

    def add_user(self, name: str) -> None:
        """Adds a user with the common password, without permissions."""
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(name, credential, PASSWORD.encode())
        for future in self._admin.alter_user_scram_credentials([change]).values():
            future.result(PATIENCE)

    def create_topics(self, *names: str) -> None:
        """Creates topics."""
        for future in self._admin.create_topics([NewTopic(name, 1) for name in names]).values():
            future.result(PATIENCE)

    def allow(self, user: str, name: str, *operations: str, kind: ResourceType = ResourceType.TOPIC) -> None:
        """Permits a user operations on a topic or a group; READ and WRITE imply DESCRIBE."""
        bindings = [
            AclBinding(
                kind,
                name,
                ResourcePatternType.LITERAL,
                f"User:{user}",
                "*",
                AclOperation[operation],
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]
        for future in self._admin.create_acls(bindings).values():
            future.result(PATIENCE)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The certificates of the session."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def kafka(
    kafka_distribution: Distribution, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecuredKafka]:
    """The secured broker of the session."""
    listeners = {SASL: "SASL_SSL", MTLS: "SSL", EXPIRED: "SASL_SSL", ELSEWHERE: "SASL_SSL"}
    folder = tmp_path_factory.mktemp("secured-kafka")
    broker = ApacheKafka(kafka_distribution, folder, _broker_properties(certificates), listeners)
    try:
        yield SecuredKafka(broker.start())
    finally:
        broker.remove_data()


@dataclass
class Site:
    """Environment files, and processes that use them.

    Attributes:
        folder: The folder of the files.
        variables: Environment variables of the processes.
    """

    kafka: SecuredKafka
    certificates: Certificates
    folder: Path
    variables: dict[str, str] = field(default_factory=dict[str, str])
    commands: str = field(default_factory=lambda: f"commands-{uuid.uuid4().hex[:8]}")

    def scram(self, user: str = "operator", **changes: str) -> dict[str, str]:
        """Returns the [kafka] section of a user with a password."""
        return {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": self.certificates.path("site.pem"),
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": user,
            "sasl.password": f"${{{PASSWORD_VARIABLE}}}",
        } | {name.replace("_", "."): value for name, value in changes.items()}

    def mutual_tls(self, name: str = "operator") -> dict[str, str]:
        """Returns the [kafka] section of a user with a certificate."""
        return {
            "security.protocol": "SSL",
            "ssl.ca.location": self.certificates.path("site.pem"),
            "ssl.certificate.location": self.certificates.path(f"{name}.crt"),
            "ssl.key.location": self.certificates.path(f"{name}.key"),
        }

    def write(self, listener: str, section: Mapping[str, str], name: str = "site") -> None:
        """Writes an environment file."""
        lines = [
            "[DEFAULT]",
            f"kafka_broker_url={self.kafka.address(listener)}",
            f"k2eg_cmd_topic={self.commands}",
            "[kafka]",
            *(f"{key}={value}" for key, value in section.items()),
        ]
        (self.folder / f"{name}.ini").write_text("\n".join(lines) + "\n")

    def settings(self, listener: str, section: Mapping[str, str], app_name: str = "app") -> Settings:
        """Writes an environment file and loads it."""
        self.write(listener, section)
        return load_settings("site", app_name, self.folder)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts the command line with the environment file written last."""
        return subprocess.Popen(
            [sys.executable, "-m", "k2eg.cli", "-e", "site", "-a", "app", *arguments],
            env={**os.environ, **self.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the command line and waits for its exit."""
        with self.start(*arguments) as process:
            try:
                out, err = process.communicate(timeout=RUN_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                pytest.fail(f"k2eg {' '.join(arguments)} did not end; output: {out!r} {err!r}")
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.fixture
def site(kafka: SecuredKafka, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Environment files in the test's folder, with a command topic of the test."""
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    site = Site(kafka, certificates, tmp_path, {FOLDER_VARIABLE: str(tmp_path)})
    kafka.create_topics(site.commands)
    return site


class SecretScanner:
    """Searches logs, texts and exceptions for secrets."""

    def __init__(self, logs: pytest.LogCaptureFixture, secrets: Sequence[str]) -> None:
        self._logs = logs
        self._secrets = secrets
        self._texts: list[str] = []

    def add(self, *items: str | BaseException) -> None:
        """Adds texts, and exceptions with their causes and tracebacks."""
        for item in items:
            if isinstance(item, str):
                self._texts.append(item)
            else:
                self._texts.append(f"{item!r} {item}" + "".join(traceback.format_exception(item)))

    def check(self) -> None:
        """Fails if a secret is in an added text or in a log record."""
        formatter = logging.Formatter()
        logged = [f"{formatter.format(record)} {record.args!r}" for record in self._logs.records]
        for text in (*self._texts, *logged):
            for secret in self._secrets:
                assert secret not in text, text
        assert self._texts


@pytest.fixture
def scanner(caplog: pytest.LogCaptureFixture, certificates: Certificates) -> Iterator[SecretScanner]:
    """Searches the log at all levels, and what the test adds, for secrets at the end of the test."""
    caplog.set_level(logging.DEBUG)
    keys = [path.read_text().splitlines()[1] for path in certificates.folder.glob("*.key")]
    scanner = SecretScanner(caplog, [PASSWORD, WRONG_PASSWORD, *keys])
    yield scanner
    scanner.check()
