"""Apache Kafka for the tests that need it: one for the session, or one of a test's own that may be killed.

It comes from Maven Central, with java and mvn of this machine. K2EG_TEST_KAFKA=host:port names one that runs already.
Where neither is to be had, those tests are skipped.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import pytest
from apache_kafka import ApacheKafka, ForeignKafka
from hypothesis import HealthCheck, settings
from kafka_distribution import Distribution, Unavailable, find_distribution

KAFKA_VARIABLE = "K2EG_TEST_KAFKA"
MARK = "apache_kafka"

_FOUND: pytest.StashKey[Distribution | Unavailable] = pytest.StashKey()
_FETCHING = "fetching Apache Kafka from Maven Central, once (60 MB) ..."


# The machine may be busy: how long an example takes says nothing about the code.
settings.register_profile("k2eg", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("k2eg")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds this project's options."""
    parser.addoption(
        "--broker", choices=("embedded", "apache"), default="embedded", help="the Kafka broker of the system tests"
    )
    parser.addoption("--update-public-api", action="store_true", help="write tests/data/public_api.txt anew")


def pytest_configure(config: pytest.Config) -> None:
    """Adds the mark by which ``-m 'not apache_kafka'`` leaves these tests out."""
    config.addinivalue_line("markers", f"{MARK}: needs an Apache Kafka")
    # A shell has what it runs in the background ignore Ctrl-C, and so would every program that a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks what asks for a broker by name; a parameter of a fixture has to be marked where it is listed."""
    on_apache = item.config.getoption("--broker") == "apache" and "stack" in _fixtures(item)
    if on_apache or _fixtures(item) & {"apache_kafka", "kafka_distribution"}:
        item.add_marker(MARK)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetches the broker, if a test needs it, before the time of the first test runs."""
    if any(item.get_closest_marker(MARK) for item in session.items) and not session.config.option.collectonly:
        _find(session.config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips here, so that pytest says why in one line for all tests."""
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
    """What an Apache Kafka of our own is started with."""
    found = _find(request.config)
    assert isinstance(found, Distribution)  # else the test was skipped
    return found


@pytest.fixture(scope="session")
def apache_kafka(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApacheKafka | ForeignKafka]:
    """The Apache Kafka that all tests share, at its `address`."""
    if KAFKA_VARIABLE in os.environ:
        yield ForeignKafka(os.environ[KAFKA_VARIABLE])
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
    """What starts an Apache Kafka for one test, which may do with it as it likes; takes what `ApacheKafka` takes."""
    with ExitStack() as brokers:

        def make(
            properties: Mapping[str, str] | None = None,
            listeners: Mapping[str, str] | None = None,
            java_options: Sequence[str] = (),
        ) -> ApacheKafka:
            folder = tmp_path_factory.mktemp("apache-kafka")
            broker = ApacheKafka(kafka_distribution, folder, properties, listeners, java_options)
            brokers.callback(broker.remove_data)
            return broker.start()

        yield make
