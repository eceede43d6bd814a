"""Gateway options."""

from __future__ import annotations

import pytest

from k2eg_rx.gateway.runtime.options import GatewayOptions


def test_an_empty_section_has_the_defaults() -> None:
    assert GatewayOptions.from_section({}) == GatewayOptions()


def test_a_section_is_parsed() -> None:
    section = {
        "group": "lab-gateway",
        "operation_timeout": "2.5",
        "create_topics": "No",
        "monitor_expiration": "0",
        "max_pending": "7",
    }
    options = GatewayOptions.from_section(section)
    assert options == GatewayOptions(
        group="lab-gateway", operation_timeout=2.5, create_topics=False, monitor_expiration=0.0, max_pending=7
    )


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"operation_timeuot": "1"}, "operation_timeuot is not an option: did you mean operation_timeout?"),
        ({"colour": "1"}, "colour is not an option: known are access, audit_topic, command_topics"),
        ({"operation_timeout": "soon"}, "operation_timeout must be a number, got 'soon'"),
        ({"operation_timeout": "0"}, "operation_timeout must be a finite number above 0, got 0.0"),
        ({"max_put_age": "nan"}, "max_put_age"),
        ({"monitor_expiration": "-1"}, "monitor_expiration"),
        ({"start_timeout": "-1"}, "start_timeout"),
        ({"max_pending": "1.5"}, "max_pending must be a whole number, got '1.5'"),
        ({"ignored_groups": "("}, "ignored_groups must be a regular expression"),
        ({"purge": "2"}, "purge must be 'yes' or 'no', got '2'"),
        ({"log_level": "loud"}, "log_level must be 'debug' or 'info'"),
        ({"log_format": "xml"}, "log_format must be 'text' or 'json', got 'xml'"),
        ({"reply_topics": "("}, "reply_topics must be a regular expression"),
        ({"max_names": "0"}, "max_names must be a whole number of at least 1, got 0"),
        ({"max_pending": "0"}, "max_pending must be a whole number of at least 1, got 0"),
        ({"create_topics": "maybe"}, "create_topics must be 'yes' or 'no', got 'maybe'"),
        ({"command_topics": "a"}, "command_topics must be a list of TOPIC:NAME"),
        ({"command_topics": "a:b, c d:e"}, "got 'c d:e'"),
        ({"command_topics": "a:anonymous"}, "other than 'anonymous', got 'a:anonymous'"),
        ({"command_topics": "a:b, a:c"}, "command_topics must name each topic once, got 'a' twice"),
        ({"group": "my group"}, "got 'my group'"),
        ({"group": ""}, "got ''"),
    ],
)
def test_errors_name_the_option(section: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=r"\[gateway\]") as raised:
        GatewayOptions.from_section(section)
    assert words in str(raised.value)


@pytest.mark.parametrize(("group", "warns"), [("lcls-k2eg", True), ("my-K2EG-group", True), ("epics-gateway", False)])
def test_a_group_name_with_k2eg_is_accepted_with_a_warning(
    group: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    GatewayOptions.from_section({"group": group}).warn()
    assert ("share the commands" in caplog.text) is warns


def test_the_endpoint_is_off_by_default_and_listens_on_loopback() -> None:
    options = GatewayOptions()
    assert (options.metrics_port, options.metrics_host) == (0, "127.0.0.1")
    given = GatewayOptions.from_section({"metrics_port": "9464", "metrics_host": "0.0.0.0"})
    assert (given.metrics_port, given.metrics_host) == (9464, "0.0.0.0")


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ({"metrics_port": "65536"}, r"\[gateway\] metrics_port must be .* 65535, got 65536"),
        ({"metrics_port": "-1"}, r"\[gateway\] metrics_port must be"),
        ({"metrics_port": "http"}, r"\[gateway\] metrics_port must be a whole number, got 'http'"),
        ({"metrics_host": " "}, r"\[gateway\] metrics_host must be an address of this machine, got ''"),
    ],
)
def test_a_port_or_an_address_that_is_none_is_refused(section: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        GatewayOptions.from_section(section)


def test_command_topics_have_principals() -> None:
    options = GatewayOptions.from_section({"command_topics": "ops-commands: operators, web: site@example.org,"})
    assert options.principals == {"ops-commands": "operators", "web": "site@example.org"}
    assert GatewayOptions().principals == {}
