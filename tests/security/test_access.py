"""Access to a secured broker: success, and prompt errors that name the cause and reveal no secret."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import ResourceType
from reactivex import operators as ops
from timeouts import scaled_by_load

from k2eg.dml import dml
from k2eg_rx import Client, ConnectionState, TransportError, first
from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.embedded.loopback import without_epics
from k2eg_rx.gateway.service import gateway
from k2eg_rx.kafka.connection.configuration import presence_group
from k2eg_rx.settings import Settings

LIMIT = 10.0  # seconds in which a refusal must be reported, on an idle machine
LONG = 600.0  # seconds; so long a timeout that no operation ends by it
PATIENCE = 120.0  # seconds until a test fails; a passing test never waits that long
_PRINT_THREADS_AT_EXIT = """
import atexit, pathlib, sys, time


def rdkafka_threads():
    for path in pathlib.Path("/proc/self/task").glob("*/comm"):
        try:
            name = path.read_text().strip()
        except OSError:  # it has ended meanwhile
            continue
        if name.startswith("rdk:"):
            yield name


def print_threads():
    deadline = time.monotonic() + 1  # the kernel shows a thread that was joined for a moment
    while (names := list(rdkafka_threads())) and time.monotonic() < deadline:
        time.sleep(0.01)
    print("librdkafka's:", names)


atexit.register(print_threads)  # before the handlers of the library, so that it runs after them

from k2eg.cli import main

sys.exit(main(sys.argv[1:]))
"""
DATABASE = Path(__file__).parents[1] / "data" / "records.db"


@pytest.fixture(scope="session")
def ioc() -> Iterator[SoftIoc]:
    """A soft IOC."""
    with SoftIoc(DATABASE) as ioc:
        yield ioc


@pytest.mark.parametrize("mechanism", ["scram", "mutual TLS"])
def test_client_gateway_and_command_line_need_only_the_kafka_section(
    mechanism: str, site: Any, ioc: SoftIoc, scanner: Any
) -> None:
    listener, section = ("SASL", site.scram()) if mechanism == "scram" else ("MTLS", site.mutual_tls())
    settings = site.settings(listener, section)
    site.variables |= without_epics() | ioc.client_environment
    process = site.start("gateway")
    try:
        output = _read_until(process, "gateway started")
        with Client("site", "app", settings=settings) as client:
            first(client.put_stream("pva://t:ao", 2.5))
            assert first(client.get_stream("ca://t:ao")).value == 2.5
            # A gateway that knows the monitor from the case before may publish the value before the put, too.
            first(client.monitor_stream("pva://t:ao").pipe(ops.filter(lambda update: update.value == 2.5)))
            assert client.status.reason == ""
        got = site.run("get", "pva://t:ao")
        assert (got.returncode, "2.5" in got.stdout) == (0, True), got
        put = site.run("--debug", "put", "pva://t:ao", "3.5")
        assert put.returncode == 0, put
        assert "3.5" in site.run("monitor", "--count", "1", "pva://t:ao").stdout
        scanner.add(output, got.stdout, got.stderr, put.stdout, put.stderr)
    finally:
        process.send_signal(signal.SIGTERM)
        scanner.add(*process.communicate(timeout=PATIENCE))
    assert process.returncode == 0


def _read_until(process: Any, words: str) -> str:
    """Returns the standard error of a process up to the line with some words."""
    output = ""
    deadline = time.monotonic() + PATIENCE
    while words not in output and select.select([process.stderr], [], [], max(0.0, deadline - time.monotonic()))[0]:
        line = process.stderr.readline()
        if not line:
            break
        output += line
    assert words in output, output
    return output


def _refusal(settings: Settings, scanner: Any) -> str:
    """Returns the error text of a refused client, which is the same for all operations."""
    with Client("site", "app", settings=settings, timeout=LONG) as client:
        operations: list[Callable[[], object]] = [
            lambda: first(client.ready_stream()),
            lambda: first(client.get_stream("pva://x")),
            lambda: first(client.put_stream("pva://x", 1, check=False)),
            lambda: first(client.snapshot_stream(["pva://x"])),
            lambda: first(client.monitor_stream("pva://x")),
        ]
        texts = [_error_of(operation, scanner) for operation in operations]
        assert client.status.connection is ConnectionState.DOWN
        assert client.status.reason == texts[0]
        scanner.add(repr(client.status), repr(client.settings))
    assert len(set(texts)) == 1, texts
    return texts[0]


def _error_of(operation: Callable[[], object], scanner: Any) -> str:
    started = time.monotonic()
    with pytest.raises(TransportError) as caught:
        operation()
    assert time.monotonic() - started < scaled_by_load(LIMIT)
    scanner.add(caught.value)
    return str(caught.value)


# the listener, changes of the [kafka] section, and words of the error
REFUSALS: dict[str, tuple[str, Any, str]] = {
    "wrong password": ("SASL", {"sasl_password": "stale-Paper-Clip-17"}, "sasl.password in [kafka]"),
    "unknown user": ("SASL", {"sasl_username": "unknown"}, "sasl.username"),
    "other mechanism": ("SASL", {"sasl_mechanism": "PLAIN"}, "supported mechanisms: SCRAM-SHA-512"),
    "untrusted authority": ("SASL", {"ssl_ca_location": "other.pem"}, "ssl.ca.location in [kafka]"),
    "expired certificate": ("EXPIRED", {}, "has expired: have it renewed"),
    "certificate of another host": ("ELSEWHERE", {}, "is for another host name"),
    "no client certificate": ("MTLS", None, "ssl.certificate.location"),
    "expired client certificate": ("MTLS", "expired-operator", "that the certificate has not expired"),
    "client certificate of another authority": ("MTLS", "stranger", "that the broker trusts its issuer"),
}


def _refused_settings(site: Any, case: str) -> tuple[Settings, str]:
    """Returns the settings of a refused client, and words of the expected error."""
    listener, changes, words = REFUSALS[case]
    if changes is None:
        section = {name: value for name, value in site.mutual_tls().items() if "certificate" not in name}
        section.pop("ssl.key.location")
    elif isinstance(changes, str):
        section = site.mutual_tls(changes)
    else:
        section = site.scram(**changes)
        if "ssl_ca_location" in changes:
            section["ssl.ca.location"] = site.certificates.path(changes["ssl_ca_location"])
    return site.settings(listener, section), words


@pytest.mark.parametrize("case", REFUSALS)
def test_the_error_names_what_to_fix(case: str, site: Any, scanner: Any) -> None:
    settings, words = _refused_settings(site, case)
    text = _refusal(settings, scanner)
    assert words in text
    assert settings.broker_url in text
    assert "\n" not in text


@pytest.mark.parametrize("case", ["wrong password", "untrusted authority", "expired certificate"])
def test_the_command_line_reports_a_refusal_in_one_line(case: str, site: Any, scanner: Any) -> None:
    _, words = _refused_settings(site, case)
    got = site.run("get", "--timeout", str(LONG), "pva://x")
    assert got.returncode == 3
    assert got.stdout == ""
    assert got.stderr.startswith("k2eg: ")
    assert words in got.stderr
    assert got.stderr.count("\n") == 1
    debugged = site.run("--debug", "get", "pva://x")
    assert "Traceback" in debugged.stderr
    scanner.add(got.stderr, debugged.stdout, debugged.stderr)


@pytest.mark.parametrize("command", ["get", "gateway"])
@pytest.mark.parametrize("case", ["wrong password", "untrusted authority", "expired client certificate"])
def test_librdkafka_threads_end_before_the_process_exits(command: str, case: str, site: Any, scanner: Any) -> None:
    """A TLS handshake during the clean-up of OpenSSL would end the process by a signal."""
    _refused_settings(site, case)
    site.variables |= without_epics()
    arguments = {"get": ("get", "--timeout", str(LONG), "pva://x"), "gateway": ("gateway",)}[command]
    ran = subprocess.run(
        [sys.executable, "-c", _PRINT_THREADS_AT_EXIT, "-e", "site", "-a", "app", *arguments],
        env={**os.environ, **site.variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    scanner.add(ran.stderr)
    assert (ran.returncode, ran.stdout) == ({"get": 3, "gateway": 1}[command], "librdkafka's: []\n")


@pytest.mark.parametrize("case", ["wrong password", "untrusted authority", "expired client certificate"])
def test_a_refused_gateway_exits_with_the_reason(case: str, site: Any, scanner: Any) -> None:
    _, words = _refused_settings(site, case)
    site.variables |= without_epics()
    ran = site.run("gateway")
    assert ran.returncode == 1
    assert re.search(f"gateway cannot run: .*{re.escape(words)}", ran.stderr.splitlines()[-1])
    scanner.add(ran.stdout, ran.stderr)


def test_an_embedded_gateway_raises_the_reason(site: Any, scanner: Any) -> None:
    settings, words = _refused_settings(site, "wrong password")
    started = time.monotonic()
    with pytest.raises(TransportError) as caught, gateway(settings):
        pytest.fail("the gateway runs")
    assert words in str(caught.value)
    assert time.monotonic() - started < scaled_by_load(LIMIT)
    scanner.add(caught.value)


def test_the_callback_api_raises_the_reason(site: Any, scanner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, words = _refused_settings(site, "wrong password")
    monkeypatch.setenv("K2EG_PYTHON_CONFIGURATION_PATH_FOLDER", str(site.folder))
    client = dml("site", "app")
    try:
        for operation in (
            lambda: client.wait_for_backends(LONG),
            lambda: client.get("pva://x", LONG),
            lambda: client.monitor("pva://x", print, LONG),
        ):
            assert words in _error_of(operation, scanner)
    finally:
        client.close()


def test_a_client_connects_once_its_user_is_added(site: Any, scanner: Any) -> None:
    user = f"late-{site.commands}"
    with Client("site", "app", settings=site.settings("SASL", site.scram(user)), timeout=LONG) as client:
        assert "sasl.password" in _error_of(lambda: first(client.get_stream("pva://x")), scanner)
        for name in (client.settings.reply_topic, site.commands):
            site.kafka.allow(user, name, "READ", "WRITE", "CREATE")
        site.kafka.allow(user, presence_group(client.app_name), "READ", kind=ResourceType.GROUP)
        site.kafka.add_user(user)
        first(client.status_stream().pipe(ops.filter(lambda status: status.connection is ConnectionState.UP)))
        assert first(client.ready_stream()).reason == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"sasl.passwrd": "correct-Horse-Battery-41"},
        {"ssl.key.pem": "correct-Horse-Battery-41"},
        {"sasl.mechanism": "SCRAM-SHA-512", "sasl.password": ""},
        {"enable.ssl.certificate.verification": "perhaps"},
        {"debug": "conf,security,broker"},
    ],
)
def test_errors_of_the_kafka_section_do_not_reveal_secrets(wrong: dict[str, str], site: Any, scanner: Any) -> None:
    settings = site.settings("SASL", site.scram() | wrong)
    if "debug" in wrong:
        with Client("site", "app", settings=settings) as client:
            scanner.add(repr(first(client.ready_stream())))
        return
    with pytest.raises(TransportError) as caught:
        Client("site", "app", settings=settings)
    ran = site.run("--debug", "get", "pva://x")
    assert ran.returncode == 3
    scanner.add(caught.value, ran.stdout, ran.stderr)
