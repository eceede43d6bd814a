"""The configuration of the deployed gateway, read for this one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from k2eg_rx.gateway import GatewayOptions
from k2eg_rx.gateway.runtime import deployed_options
from k2eg_rx.gateway.runtime.deployed_configuration import (
    DeployedConfiguration,
    load_deployed_configuration,
    uses_variables,
)

LEAST = "cmd-input-topic=commands\npub-server-address=kafka:9092\n"
SECRET = "hunter2"

# The options of the deployed gateway, spelled as there.
DEPLOYED = {
    "cmd-input-topic",
    "cmd-max-fecth-element",
    "cmd-max-fecth-time-out",
    "conf-file",
    "conf-file-name",
    "configuration-reset-on-start",
    "configuration-server-host",
    "configuration-server-port",
    "epics-monitor-channel-poll-max",
    "epics-monitor-thread-count",
    "log-file-max-size",
    "log-file-name",
    "log-level",
    "log-on-console",
    "log-on-file",
    "log-on-syslog",
    "metric-enable",
    "metric-server-http-port",
    "monitor-worker-cron-schedule",
    "nc-monitor-consumer-filterout-regex",
    "nc-monitor-expiration-timeout",
    "nc-purge-queue-on-exp-timeout",
    "node-type",
    "pub-flush-trimeout-ms",
    "pub-group-id",
    "pub-impl-kv",
    "pub-server-address",
    "scheduler-check-delay-seconds",
    "scheduler-thread-number",
    "snapshot-repeating-scheduler-thread",
    "storage-path",
    "sub-group-id",
    "sub-impl-kv",
    "sub-server-address",
    "syslog-port",
    "syslog-server",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lab.conf"


def load(path: Path, text: str, variables: Mapping[str, str] | None = None, *words: str) -> DeployedConfiguration:
    path.write_text(text)
    return load_deployed_configuration(path, variables or {}, words)


def options(configuration: DeployedConfiguration) -> GatewayOptions:
    return GatewayOptions.from_section(configuration.settings.section("gateway"))


def verdicts(configuration: DeployedConfiguration, verdict: str) -> dict[str, str]:
    return {finding.name: finding.detail for finding in configuration.findings if finding.verdict == verdict}


def test_every_option_of_the_deployed_gateway_is_known() -> None:
    assert set(deployed_options.NAMES) == DEPLOYED


def test_a_file_becomes_settings(path: Path) -> None:
    configuration = load(
        path,
        """# the laboratory's gateway
        cmd-input-topic = commands   # a comment, as there
        pub-server-address=one:9092,two:9092
        sub-server-address=two:9092, one:9092
        sub-group-id=lcls-k2eg
        pub-group-id=other
        pub-impl-kv=security.protocol:SASL_SSL
        sub-impl-kv=security.protocol:SASL_SSL
        pub-impl-kv=linger.ms:5
        sub-impl-kv=sasl.oauthbearer.token.endpoint.url:https://id.example.org:8443/token
        pub-impl-kv=acks:1
        nc-monitor-expiration-timeout=600
        nc-purge-queue-on-exp-timeout=0
        nc-monitor-consumer-filterout-regex=.*strimzi.*
        nc-monitor-consumer-filterout-regex=.*k2eg.*
        log-level=TRACE
        node-type=gateway
        """,
    )
    settings, found = configuration.settings, options(configuration)
    assert (settings.command_topic, settings.broker_url) == ("commands", "two:9092, one:9092")
    assert settings.kafka == {"security.protocol": "SASL_SSL"}
    assert settings.producer == {"linger.ms": "5"}
    assert settings.consumer == {"sasl.oauthbearer.token.endpoint.url": "https://id.example.org:8443/token"}
    assert (found.group, found.monitor_expiration, found.purge) == ("lcls-k2eg", 600.0, False)
    assert found.ignored_groups == "(?:.*strimzi.*)|(?:.*k2eg.*)"
    assert found.log_level == "debug"
    assert configuration.origins["gateway", "group"] == f"{path}:5 sub-group-id"
    assert verdicts(configuration, "no meaning here").keys() == {"pub-group-id", "pub-impl-kv"}
    assert "all" in verdicts(configuration, "no meaning here")["pub-impl-kv"]


def test_missing_options_have_the_deployed_gateways_defaults(path: Path) -> None:
    found = options(load(path, LEAST))
    assert (found.group, found.purge, found.monitor_expiration) == ("k2eg-default-group", True, 3600.0)


@pytest.mark.parametrize(
    ("lines", "port", "host"),
    [
        ("", 0, "127.0.0.1"),
        ("metric-server-http-port=9090", 0, "127.0.0.1"),
        ("metric-enable=0\nmetric-server-http-port=9090", 0, "127.0.0.1"),
        ("metric-enable=1", 8080, "0.0.0.0"),
        ("metric-enable=true\nmetric-server-http-port=9090", 9090, "0.0.0.0"),
    ],
)
def test_metrics_are_where_the_sites_prometheus_looks(path: Path, lines: str, port: int, host: str) -> None:
    found = options(load(path, LEAST + lines))
    assert (found.metrics_port, found.metrics_host) == (port, host)


def test_each_option_is_reported_once(path: Path) -> None:
    configuration = load(path, LEAST + "storage-path=/opt\nsyslog-port=514\nnc-purge-queue-on-exp-timout=1\nxyzzy=1\n")
    assert len(configuration.findings) == 6
    assert verdicts(configuration, "used") == {
        "cmd-input-topic": "[DEFAULT] k2eg_cmd_topic=commands",
        "pub-server-address": "[DEFAULT] kafka_broker_url=kafka:9092",
    }
    assert verdicts(configuration, "no meaning here")["storage-path"] == "nothing is stored"
    assert verdicts(configuration, "unknown") == {
        "nc-purge-queue-on-exp-timout": "did you mean nc-purge-queue-on-exp-timeout?",
        "xyzzy": "no option has a similar name",
    }
    assert {finding.origin for finding in configuration.findings} == {f"{path}:{line}" for line in range(1, 7)}


@pytest.mark.parametrize(
    "variable",
    ["EPICS_K2EG_SUB_GROUP_ID", "EPICS_k2eg_sub_group_id", "EPICS_k2eg_sub-group-id"],
)
def test_command_line_goes_before_environment_and_that_before_the_file(path: Path, variable: str) -> None:
    text, variables = LEAST + "sub-group-id=of-file\n", {variable: "of-environment", "EPICS_CA_ADDR_LIST": "ioc"}
    assert options(load(path, text)).group == "of-file"
    configuration = load(path, text, variables)
    assert options(configuration).group == "of-environment"
    assert verdicts(configuration, "overridden") == {"sub-group-id": f"by {variable}"}
    assert options(load(path, text, variables, "sub-group-id=of-words")).group == "of-words"


def test_the_environment_alone_is_enough_and_may_name_the_file(path: Path) -> None:
    variables = {"EPICS_K2EG_CMD_INPUT_TOPIC": "commands", "EPICS_K2EG_SUB_SERVER_ADDRESS": "kafka:9092"}
    assert uses_variables(variables)
    assert not uses_variables({"EPICS_CA_ADDR_LIST": "ioc", "K2EG_CLI_DEFAULT_ENVIRONMENT": "lab"})
    assert load_deployed_configuration(None, variables).settings.broker_url == "kafka:9092"
    path.write_text(LEAST)
    named = {"EPICS_k2eg_conf-file": "true", "EPICS_k2eg_conf-file-name": str(path)}
    assert load_deployed_configuration(None, named).settings.command_topic == "commands"


@pytest.mark.parametrize(
    ("lines", "where", "words"),
    [
        (f"sasl.password:{SECRET}", 3, "must be NAME=VALUE"),
        (f"sasl.password:{SECRET}=2", 3, "must be NAME=VALUE"),
        ("[gateway]", 3, "an environment file, with sections, is named by -e"),
        (f"pub-impl-kv=sasl.password={SECRET}", 3, "pub-impl-kv must be PROPERTY:VALUE"),
        (f"pub-impl-kv={SECRET} x:1", 3, "pub-impl-kv must be PROPERTY:VALUE"),
        ("nc-monitor-expiration-timeout=10 min", 3, "must be a whole number from 1 to"),
        ("nc-monitor-expiration-timeout=0", 3, "must be a whole number from 1 to"),
        ("nc-purge-queue-on-exp-timeout=maybe", 3, "[gateway] purge must be 'yes' or 'no', got 'maybe'"),
        (
            "nc-monitor-consumer-filterout-regex=.*k2eg.*\nnc-monitor-consumer-filterout-regex=(",
            4,
            "regular expression",
        ),
        ("sub-group-id=my group", 3, "[gateway] group must consist of"),
        ("log-level=loud", 3, "log-level must be one of trace, debug"),
        ("metric-enable=1\nmetric-server-http-port=80808", 4, "must be a whole number from 1 to 65535"),
        ("metric-enable=perhaps", 3, "metric-enable must be true or false"),
        ("node-type=storage", 3, "this program has no other kind of node"),
        ("cmd-input-topic=again", 3, "cmd-input-topic is given already, at"),
        ("sub-server-address=elsewhere:9092", 3, "must be the brokers of pub-server-address"),
    ],
)
def test_an_error_names_file_and_line_and_no_secret(path: Path, lines: str, where: int, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{path}:{where}: ") as raised:
        load(path, LEAST + lines)
    assert words in str(raised.value)
    assert SECRET not in str(raised.value)


def test_errors_of_other_places(path: Path) -> None:
    with pytest.raises(ValueError, match="cmd-input-topic must be given: in the file, as EPICS_K2EG_CMD_INPUT_TOPIC"):
        load(path, "pub-server-address=kafka:9092")
    with pytest.raises(ValueError, match=r"EPICS_K2EG_LOG_LEVEL: log-level must be one of"):
        load(path, LEAST, {"EPICS_K2EG_LOG_LEVEL": "loud"})
    with pytest.raises(ValueError, match=r"^--set: must be NAME=VALUE"):
        load(path, LEAST, {}, "log-level")
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        load_deployed_configuration(path.with_name("missing"), {})
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="cannot be read: it is not UTF-8"):
        load_deployed_configuration(path, {})


def test_no_report_has_a_secret(path: Path) -> None:
    secrets = f"pub-impl-kv=sasl.password:{SECRET}\nsub-impl-kv=ssl.key.password:{SECRET}\n"
    configuration = load(path, LEAST + secrets)
    assert configuration.settings.producer == {"sasl.password": SECRET}
    assert SECRET not in repr(configuration)
    assert verdicts(configuration, "used")["pub-impl-kv"] == "[kafka.producer] sasl.password"
