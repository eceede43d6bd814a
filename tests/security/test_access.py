"""Whoever is let in works as anybody does; whoever is not is told why, at once, and no secret with it."""

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
from reactivex import operators as ops
from timeouts import scaled_by_load

from k2eg.dml import dml
from k2eg_rx import Client, ConnectionState, TransportError, first
from k2eg_rx.embedded.ioc import SoftIoc
from k2eg_rx.embedded.loopback import without_epics
from k2eg_rx.gateway.service import gateway
from k2eg_rx.settings import Settings

LIMIT = 10.0  # seconds in which a refusal has to be told, on a machine that has nothing else to do
LONG = 600.0  # seconds that operations have here: if one ends in time it is not for its timeout
PATIENCE = 120.0  # seconds until something that should happen is missing; a green test never waits that long
_TELLS_ITS_THREADS = """
import atexit, pathlib, sys

from k2eg.cli import main


def tell():
    names = [path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    print("librdkafka's:", [name for name in names if name.startswith("rdk:")])


atexit.register(tell)
sys.exit(main(sys.argv[1:]))
"""
DATABASE = Path(__file__).parents[1] / "data" / "records.db"


@pytest.fixture(scope="session")
def ioc() -> Iterator[SoftIoc]:
    """Some records."""
    with SoftIoc(DATABASE) as ioc:
        yield ioc


@pytest.mark.parametrize("way", ["scram", "mutual TLS"])
def test_client_gateway_and_command_line_need_the_kafka_section_and_no_more(
    way: str, site: Any, ioc: SoftIoc, secrecy: Any
) -> None:
    listener, section = ("SASL", site.scram()) if way == "scram" else ("MTLS", site.mutual_tls())
    settings = site.settings(listener, section)
    site.variables |= without_epics() | ioc.client_environment
    process = site.start("gateway")
    try:
        said = _until(process, "gateway started")
        with Client("site", "app", settings=settings) as client:
            first(client.put_stream("pva://t:ao", 2.5))
            assert first(client.get_stream("ca://t:ao")).value == 2.5
            assert first(client.monitor_stream("pva://t:ao")).value == 2.5
            assert client.status.reason == ""
        got = site.run("get", "pva://t:ao")
        assert (got.returncode, "2.5" in got.stdout) == (0, True), got
        put = site.run("--debug", "put", "pva://t:ao", "3.5")
        assert put.returncode == 0, put
        assert "3.5" in site.run("monitor", "--count", "1", "pva://t:ao").stdout
        secrecy.add(said, got.stdout, got.stderr, put.stdout, put.stderr)
    finally:
        process.send_signal(signal.SIGTERM)
        secrecy.add(*process.communicate(timeout=PATIENCE))
    assert process.returncode == 0


def _until(process: Any, words: str) -> str:
    """Returns what a process said on standard error until it said some words."""
    said = ""
    deadline = time.monotonic() + PATIENCE
    while words not in said and select.select([process.stderr], [], [], max(0.0, deadline - time.monotonic()))[0]:
        line = process.stderr.readline()
        if not line:
            break
        said += line
    assert words in said, said
    return said


def _refused(settings: Settings, secrecy: Any) -> str:
    """Returns what a client is told, which is the same whatever it asks."""
    with Client("site", "app", settings=settings, timeout=LONG) as client:
        asked: list[Callable[[], object]] = [
            lambda: first(client.ready_stream()),
            lambda: first(client.get_stream("pva://x")),
            lambda: first(client.put_stream("pva://x", 1, check=False)),
            lambda: first(client.snapshot_stream(["pva://x"])),
            lambda: first(client.monitor_stream("pva://x")),
        ]
        told = [_told(ask, secrecy) for ask in asked]
        assert client.status.connection is ConnectionState.DOWN
        assert client.status.reason == told[0]
        secrecy.add(repr(client.status), repr(client.settings))
    assert len(set(told)) == 1, told
    return told[0]


def _told(ask: Callable[[], object], secrecy: Any) -> str:
    before = time.monotonic()
    with pytest.raises(TransportError) as caught:
        ask()
    assert time.monotonic() - before < scaled_by_load(LIMIT)
    secrecy.add(caught.value)
    return str(caught.value)


# listener, what is changed in the section, and what has to be in the text
REFUSALS: dict[str, tuple[str, Any, str]] = {
    "wrong password": ("SASL", {"sasl_password": "stale-Paper-Clip-17"}, "sasl.password in [kafka]"),
    "unknown user": ("SASL", {"sasl_username": "nobody"}, "sasl.username"),
    "other mechanism": ("SASL", {"sasl_mechanism": "PLAIN"}, "supported mechanisms: SCRAM-SHA-512"),
    "untrusted authority": ("SASL", {"ssl_ca_location": "other.pem"}, "ssl.ca.location in [kafka]"),
    "expired certificate": ("EXPIRED", {}, "has expired: have it renewed"),
    "certificate of another host": ("ELSEWHERE", {}, "is for another host name"),
    "no client certificate": ("MTLS", None, "ssl.certificate.location"),
    "expired client certificate": ("MTLS", "expired-operator", "that the certificate has not expired"),
    "client certificate of another authority": ("MTLS", "stranger", "that the broker trusts its issuer"),
}


def _refusing(site: Any, case: str) -> tuple[Settings, str]:
    """Returns an environment that the broker refuses, or that refuses the broker; and what is to be said of it."""
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
def test_a_client_is_told_what_to_fix(case: str, site: Any, secrecy: Any) -> None:
    settings, words = _refusing(site, case)
    told = _refused(settings, secrecy)
    assert words in told
    assert settings.broker_url in told
    assert "\n" not in told


@pytest.mark.parametrize("case", ["wrong password", "untrusted authority", "expired certificate"])
def test_the_command_line_tells_it_in_one_line(case: str, site: Any, secrecy: Any) -> None:
    _, words = _refusing(site, case)
    got = site.run("get", "--timeout", str(LONG), "pva://x")
    assert got.returncode == 1
    assert got.stdout == ""
    assert got.stderr.startswith("k2eg: ")
    assert words in got.stderr
    assert got.stderr.count("\n") == 1
    debugged = site.run("--debug", "get", "pva://x")
    assert "Traceback" in debugged.stderr
    secrecy.add(got.stderr, debugged.stdout, debugged.stderr)


@pytest.mark.parametrize("case", ["wrong password", "untrusted authority"])
def test_librdkafka_has_ended_when_the_process_ends(case: str, site: Any, secrecy: Any) -> None:
    """Else it may be in a TLS handshake while OpenSSL takes itself apart, and the process ends by a signal."""
    _refusing(site, case)
    ran = subprocess.run(
        [sys.executable, "-c", _TELLS_ITS_THREADS, "-e", "site", "-a", "app", "get", "--timeout", str(LONG), "pva://x"],
        env={**os.environ, **site.variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    secrecy.add(ran.stderr)
    assert (ran.returncode, ran.stdout) == (1, "librdkafka's: []\n")


@pytest.mark.parametrize("case", ["wrong password", "untrusted authority", "expired client certificate"])
def test_a_gateway_does_not_start_and_tells_why(case: str, site: Any, secrecy: Any) -> None:
    _, words = _refusing(site, case)
    site.variables |= without_epics()
    ran = site.run("gateway")
    assert ran.returncode == 1
    assert re.search(f"gateway cannot run: .*{re.escape(words)}", ran.stderr.splitlines()[-1])
    secrecy.add(ran.stdout, ran.stderr)


def test_a_gateway_in_a_program_is_told_the_same(site: Any, secrecy: Any) -> None:
    settings, words = _refusing(site, "wrong password")
    before = time.monotonic()
    with pytest.raises(TransportError) as caught, gateway(settings):
        pytest.fail("it runs")
    assert words in str(caught.value)
    assert time.monotonic() - before < scaled_by_load(LIMIT)
    secrecy.add(caught.value)


def test_the_documented_interface_is_told_the_same(site: Any, secrecy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, words = _refusing(site, "wrong password")
    monkeypatch.setenv("K2EG_PYTHON_CONFIGURATION_PATH_FOLDER", str(site.folder))
    client = dml("site", "app")
    try:
        for ask in (
            lambda: client.wait_for_backends(LONG),
            lambda: client.get("pva://x", LONG),
            lambda: client.monitor("pva://x", print, LONG),
        ):
            assert words in _told(ask, secrecy)
    finally:
        client.close()


def test_who_is_let_in_later_needs_no_new_client(site: Any, secrecy: Any) -> None:
    user = f"late-{site.commands}"
    with Client("site", "app", settings=site.settings("SASL", site.scram(user)), timeout=LONG) as client:
        assert "sasl.password" in _told(lambda: first(client.get_stream("pva://x")), secrecy)
        for name in (client.settings.reply_topic, site.commands):
            site.kafka.allow(user, name, "READ", "WRITE", "CREATE")
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
def test_what_is_wrong_in_the_section_is_told_without_the_secrets_in_it(
    wrong: dict[str, str], site: Any, secrecy: Any
) -> None:
    settings = site.settings("SASL", site.scram() | wrong)
    if "debug" in wrong:
        with Client("site", "app", settings=settings) as client:
            secrecy.add(repr(first(client.ready_stream())))
        return
    with pytest.raises(TransportError) as caught:
        Client("site", "app", settings=settings)
    ran = site.run("--debug", "get", "pva://x")
    assert ran.returncode == 1
    secrecy.add(caught.value, ran.stdout, ran.stderr)
