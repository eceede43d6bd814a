"""Settings from the configuration of the deployed gateway, and a report of what became of each of its options."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from k2eg_rx.gateway.runtime import deployed_options as names
from k2eg_rx.gateway.runtime.deployed_sources import (
    FILE_NAME,
    Entry,
    entries_of_environment,
    entries_of_file,
    entries_of_words,
)
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.settings import Settings, is_secret
from k2eg_rx.texts import shown

_DEFAULT, _GATEWAY = "DEFAULT", "gateway"
_PRODUCER, _CONSUMER, _SHARED = "kafka.producer", "kafka.consumer", "kafka"
_THERE = "default of the deployed gateway"

Key = tuple[str, str]
"""Section and key of an environment file."""


@dataclass(frozen=True, slots=True)
class OptionFinding:
    """What became of an option of the deployed gateway.

    Attributes:
        name: The option.
        origin: Where it was given: ``FILE:LINE``, a variable's name, or ``--set``.
        verdict: ``used``, ``no meaning here``, ``unknown`` or ``overridden``.
        detail: What it is used as, or the reason. Has no secrets.
    """

    name: str
    origin: str
    verdict: str
    detail: str


@dataclass(frozen=True, slots=True)
class DeployedConfiguration:
    """A gateway's settings, from the configuration of the deployed gateway.

    Attributes:
        settings: The settings.
        findings: A report of each option that was given.
        origins: Where each value of the settings comes from, by section and key.
    """

    settings: Settings
    findings: Sequence[OptionFinding]
    origins: Mapping[Key, str]


def load_deployed_configuration(
    path: Path | None, variables: Mapping[str, str], words: Iterable[str] = (), app_name: str = "k2eg-gateway"
) -> DeployedConfiguration:
    """Reads the configuration of the deployed gateway.

    An option of the command line is preferred to one of the environment, and that to one of the file.

    Args:
        path: The file of ``name=value`` lines; None for the one that the environment names, or for none.
        variables: The environment: ``EPICS_K2EG_NAME`` or ``EPICS_k2eg_name``, hyphens as underscores.
        words: ``NAME=VALUE`` from the command line.
        app_name: The gateway's own application name.

    Raises:
        ValueError: A line, an option's value or the file is invalid, or an option is missing. The text names the place.
    """
    environment = entries_of_environment(variables)
    named = [entry.value for entry in environment if entry.name == FILE_NAME and entry.value]
    path = path or (Path(named[0]) if named else None)
    file = entries_of_file(path) if path is not None else []
    reading = _Reading([entries_of_words(words), environment, file])
    return reading.configuration(path, app_name)


class _Reading:
    """Turns entries into settings.

    Args:
        sources: The entries of each source, the preferred one first.
    """

    def __init__(self, sources: Sequence[Sequence[Entry]]) -> None:
        self._given: dict[str, list[Entry]] = {}
        self._findings: list[OptionFinding] = []
        self._values: dict[str, dict[str, str]] = {}
        self._origins: dict[Key, str] = {}
        for source in sources:
            preferred = {name: entries[0].origin for name, entries in self._given.items()}
            for entry in source:
                if entry.name in preferred:
                    self._find(entry, "overridden", f"by {preferred[entry.name]}")
                else:
                    self._given.setdefault(entry.name, []).append(entry)

    def configuration(self, path: Path | None, app_name: str) -> DeployedConfiguration:
        """Returns the configuration."""
        for name, entries in self._given.items():
            for entry in entries:
                self._classify(name, entry)
        self._read_brokers()
        self._read_properties()
        self._read_gateway()
        values = {section: dict(keys) for section, keys in self._values.items()}
        settings = Settings(
            environment_id="deployed",
            broker_url=values[_DEFAULT]["kafka_broker_url"],
            command_topic=values[_DEFAULT]["k2eg_cmd_topic"],
            reply_topic=f"{app_name}-reply",
            kafka=values.get(_SHARED, {}),
            producer=values.get(_PRODUCER, {}),
            consumer=values.get(_CONSUMER, {}),
            sections={_GATEWAY: values.get(_GATEWAY, {})},
            source=path,
        )
        return DeployedConfiguration(settings, tuple(self._findings), self._origins)

    def _find(self, entry: Entry, verdict: str, detail: str) -> None:
        self._findings.append(OptionFinding(entry.name, entry.origin, verdict, detail))

    def _classify(self, name: str, entry: Entry) -> None:
        if name in names.WITHOUT_MEANING:
            self._find(entry, "no meaning here", names.WITHOUT_MEANING[name])
        elif name not in names.USED:
            self._find(entry, "unknown", _hint(name))

    def _one(self, name: str) -> Entry | None:
        entries = self._given.get(name)
        return entries[0] if entries else None

    def _set(self, section: str, key: str, value: str, origin: str) -> None:
        self._values.setdefault(section, {})[key] = value
        self._origins[section, key] = origin

    def _use(self, entry: Entry, section: str, key: str, value: str) -> None:
        """Sets a value that is no secret, and reports it."""
        if section == _GATEWAY:
            _check_option(entry, key, value)
        self._set(section, key, value, f"{entry.origin} {entry.name}")
        self._find(entry, "used", f"[{section}] {key}={shown(value)[1:-1]}")

    def _read_brokers(self) -> None:
        entry = self._required(names.COMMAND_TOPIC)
        self._use(entry, _DEFAULT, "k2eg_cmd_topic", entry.value)
        produced, consumed = self._one(names.PRODUCER_BROKERS), self._one(names.CONSUMER_BROKERS)
        if produced is None and consumed is None:
            self._required(names.PRODUCER_BROKERS)
        if produced is not None and consumed is not None and _addresses(produced) != _addresses(consumed):
            raise ValueError(
                f"{consumed.origin}: {consumed.name} must be the brokers of {produced.name} ({produced.origin}), which"
                " this gateway uses for both"
            )
        for given in (produced, consumed):
            if given is not None:
                self._use(self._required(given.name), _DEFAULT, "kafka_broker_url", given.value)

    def _required(self, name: str) -> Entry:
        entry = self._one(name)
        if entry is None:
            variable = f"EPICS_K2EG_{name.upper().replace('-', '_')}"
            raise ValueError(f"{name} must be given: in the file, as {variable}, or by --set {name}=VALUE")
        if not entry.value:
            raise ValueError(f"{entry.origin}: {name} must have a value")
        return entry

    def _read_properties(self) -> None:
        produced = self._properties(names.PRODUCER_PROPERTIES)
        consumed = self._properties(names.CONSUMER_PROPERTIES)
        shared = {name for name in produced.keys() & consumed.keys() if produced[name][0] == consumed[name][0]}
        for own, properties in ((_PRODUCER, produced), (_CONSUMER, consumed)):
            for name, (value, entry) in properties.items():
                section = _SHARED if name in shared else own
                self._set(section, name, value, f"{entry.origin} {entry.name}")
                what = "" if is_secret(name) else f"={shown(value)[1:-1]}"
                self._find(entry, "used", f"[{section}] {name}{what}")

    def _properties(self, option: str) -> dict[str, tuple[str, Entry]]:
        properties: dict[str, tuple[str, Entry]] = {}
        for entry in self._given.get(option, []):
            name, colon, value = (part.strip() for part in entry.value.partition(":"))
            if not colon or not value or not names.PROPERTY_NAME.fullmatch(name):
                raise ValueError(f"{entry.origin}: {option} must be PROPERTY:VALUE, a property of librdkafka")
            if name in names.PROPERTIES_NOT_USED:
                self._find(entry, "no meaning here", f"{name}: {names.PROPERTIES_NOT_USED[name]}")
            else:
                properties[name] = (value, entry)
        return properties

    def _read_gateway(self) -> None:
        self._read_group()
        purge = self._one(names.PURGE)
        if purge is not None:
            self._use(purge, _GATEWAY, "purge", purge.value)
        else:
            self._set(_GATEWAY, "purge", "yes", _THERE)
        expiration = self._one(names.EXPIRATION)
        if expiration is not None:
            self._use(expiration, _GATEWAY, "monitor_expiration", _number(expiration, 1))
        patterns = self._given.get(names.IGNORED_GROUPS, [])
        for entry in patterns:
            _check_option(entry, "ignored_groups", entry.value)
            self._find(entry, "used", f"[{_GATEWAY}] ignored_groups, whose matches do not count as listeners")
        if patterns:
            joined = patterns[0].value if len(patterns) == 1 else "|".join(f"(?:{each.value})" for each in patterns)
            origin = ", ".join(each.origin for each in patterns)
            self._set(_GATEWAY, "ignored_groups", joined, f"{origin} {names.IGNORED_GROUPS}")
        self._read_logs_and_node()
        self._read_metrics()

    def _read_group(self) -> None:
        consumer, producer = self._one(names.CONSUMER_GROUP), self._one(names.PRODUCER_GROUP)
        if consumer is not None:
            self._use(consumer, _GATEWAY, "group", consumer.value)
            if producer is not None:
                self._find(producer, "no meaning here", f"producers have no group: {names.CONSUMER_GROUP} is used")
        elif producer is not None:
            self._use(producer, _GATEWAY, "group", producer.value)
        else:
            self._set(_GATEWAY, "group", names.DEFAULT_GROUP, _THERE)

    def _read_logs_and_node(self) -> None:
        level, node = self._one(names.LOG_LEVEL), self._one(names.NODE_TYPE)
        if level is not None:
            known = names.LOG_LEVELS.get(level.value.lower())
            if known is None:
                raise ValueError(
                    f"{level.origin}: {level.name} must be one of {', '.join(names.LOG_LEVELS)}, got"
                    f" {shown(level.value)}"
                )
            self._use(level, _GATEWAY, "log_level", known)
        if node is not None:
            if node.value.lower() not in names.NODE_TYPES:
                raise ValueError(
                    f"{node.origin}: {node.name} must be gateway, got {shown(node.value)}: this program has no other"
                    " kind of node; keep the deployed one for that"
                )
            self._find(node, "used", "this program is a gateway")

    def _read_metrics(self) -> None:
        enabled, port = self._one(names.METRICS), self._one(names.METRICS_PORT)
        number = _number(port, 1, 65535) if port is not None else names.DEFAULT_METRICS_PORT
        is_on = enabled is not None and _is_on(enabled)
        if enabled is not None:
            self._find(
                enabled,
                "used",
                f"[{_GATEWAY}] metrics_port={number} on all interfaces" if is_on else "no metrics over HTTP",
            )
        if is_on and enabled is not None:
            source = port or enabled
            self._set(_GATEWAY, "metrics_port", number, f"{source.origin} {source.name}")
            # the deployed gateway listens on all interfaces, where the site's Prometheus finds it
            self._set(_GATEWAY, "metrics_host", "0.0.0.0", f"{enabled.origin} {enabled.name}")  # noqa: S104
        if port is not None:
            used = f"[{_GATEWAY}] metrics_port={number}"
            self._find(port, "used" if is_on else "no meaning here", used if is_on else f"{names.METRICS} is off")


def _hint(name: str) -> str:
    found = difflib.get_close_matches(name.lower(), names.NAMES, n=1, cutoff=0.4)
    return f"did you mean {found[0]}?" if found else "no option has a similar name"


def _check_option(entry: Entry, key: str, value: str) -> None:
    try:
        GatewayOptions.from_section({key: value})
    except ValueError as error:
        raise ValueError(f"{entry.origin}: {entry.name}: {error}") from None


def _number(entry: Entry, least: int, most: int = 2**31 - 1) -> str:
    is_number = entry.value.isascii() and entry.value.isdecimal() and len(entry.value) <= 10
    if not is_number or not least <= int(entry.value) <= most:
        raise ValueError(
            f"{entry.origin}: {entry.name} must be a whole number from {least} to {most}, got {shown(entry.value)}"
        )
    return str(int(entry.value))


def _is_on(entry: Entry) -> bool:
    value = GatewayOptions.boolean(entry.value)
    if value is None:
        raise ValueError(f"{entry.origin}: {entry.name} must be true or false, got {shown(entry.value)}")
    return value


def _addresses(entry: Entry) -> set[str]:
    return {address.strip() for address in entry.value.split(",")}


def uses_variables(variables: Mapping[str, str]) -> bool:
    """Returns whether an environment has options of the deployed gateway."""
    return bool(entries_of_environment(variables))
