"""Fixtures for tests on Apache Kafka: a broker of the session, and brokers of one test.

Apache Kafka is fetched from Maven Central with the machine's java and mvn. K2EG_TEST_KAFKA=host:port selects a running
broker instead. Tests that need a broker are skipped if there is none.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import pytest
from apache_kafka import SHORT_SESSION, ApacheKafka, ExternalKafka
from hypothesis import HealthCheck, settings
from kafka_distribution import Distribution, Unavailable, find_distribution

KAFKA_VARIABLE = "K2EG_TEST_KAFKA"
MARK = "apache_kafka"

_FOUND: pytest.StashKey[Distribution | Unavailable] = pytest.StashKey()
_FETCHING = "fetching Apache Kafka from Maven Central, once (60 MB) ..."


# The duration of an example depends on the machine's load, so it is no error.
settings.register_profile("k2eg", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("k2eg")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options of this project."""
    parser.addoption(
        "--broker", choices=("embedded", "apache"), default="embedded", help="the Kafka broker of the system tests"
    )
    parser.addoption("--update-public-api", action="store_true", help="rewrite tests/data/public_api.txt")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker of tests on Apache Kafka, and restores Ctrl-C."""
    config.addinivalue_line("markers", f"{MARK}: needs an Apache Kafka")
    os.environ["K2EG_CLI_SEEN_PVS"] = ""  # the command line keeps no names of PVs in the user's cache
    # A shell starts background processes with SIGINT ignored, which the processes started by tests would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks tests that use a broker fixture; a fixture's parameter must be marked where it is listed."""
    on_apache = item.config.getoption("--broker") == "apache" and "stack" in _fixtures(item)
    if on_apache or _fixtures(item) & {"apache_kafka", "kafka_distribution"}:
        item.add_marker(MARK)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetches Apache Kafka if a test needs it, since a test's timeout is too short for that."""
    if any(item.get_closest_marker(MARK) for item in session.items) and not session.config.option.collectonly:
        _find(session.config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests without a broker; here, since pytest then reports all of them in one line."""
    owned = KAFKA_VARIABLE not in os.environ or "kafka_distribution" in _fixtures(item)
    if owned and item.get_closest_marker(MARK) and isinstance(found := _find(item.config), Unavailable):
        pytest.skip(str(found))


def _fixtures(item: pytest.Item) -> set[str]:
    return set(getattr(item, "fixturenames", ()))


def _find(config: pytest.Config) -> Distribution | Unavailable:
    if _FOUND not in config.stash:
        terminal = config.pluginmanager.get_plugin("terminalreporter")
        try:
            config.stash[_FOUND] = find_distribution(lambda: terminal and terminal.write_line(_FETCHING))
        except Unavailable as missing:
            config.stash[_FOUND] = missing
    return config.stash[_FOUND]


@pytest.fixture(scope="session")
def kafka_distribution(request: pytest.FixtureRequest) -> Distribution:
    """Java and the class path of Apache Kafka."""
    found = _find(request.config)
    assert isinstance(found, Distribution)  # else the test was skipped
    return found


@pytest.fixture(scope="session")
def apache_kafka(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApacheKafka | ExternalKafka]:
    """The Apache Kafka shared by the tests of the session."""
    if KAFKA_VARIABLE in os.environ:
        yield ExternalKafka(os.environ[KAFKA_VARIABLE])
        return
    broker = ApacheKafka(request.getfixturevalue("kafka_distribution"), tmp_path_factory.mktemp("apache-kafka"))
    try:
        yield broker.start()
    finally:
        broker.remove_data()


@pytest.fixture
def make_apache_kafka(
    kafka_distribution: Distribution, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., ApacheKafka]]:
    """Starts an Apache Kafka that a test may kill; takes properties, listeners and options of `ApacheKafka`."""
    with ExitStack() as brokers:

        def make(
            properties: Mapping[str, str] | None = None,
            listeners: Mapping[str, str] | None = None,
            java_options: Sequence[str] = (),
        ) -> ApacheKafka:
            folder = tmp_path_factory.mktemp("apache-kafka")
            properties = {**SHORT_SESSION, **(properties or {})}
            broker = ApacheKafka(kafka_distribution, folder, properties, listeners, java_options)
            brokers.callback(broker.remove_data)
            return broker.start()

        yield make
