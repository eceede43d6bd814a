"""The effective configuration of a gateway as the text of an environment file, with the origin of each value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields

from k2eg_rx.gateway.runtime.kafka_defaults import KAFKA_DEFAULTS
from k2eg_rx.gateway.runtime.options import GatewayOptions
from k2eg_rx.settings import MAX_MESSAGE_BYTES, Settings, is_secret
from k2eg_rx.texts import printable

_BY_DEFAULT = "default"


def configuration_text(settings: Settings, origins: Mapping[tuple[str, str], str] | None = None) -> str:
    """Returns the configuration of a gateway as an environment file.

    A secret, and a value that the file would not give back, is a reference to an environment variable, which is to be
    set where the file is used.

    Args:
        settings: The gateway's settings.
        origins: Where values come from, by section and key; those that are missing come from the settings' file.

    Raises:
        ValueError: An option of `[gateway]` is unknown or its value is invalid.
    """
    options = GatewayOptions.from_section(settings.section("gateway"))
    file = str(settings.source) if settings.source is not None else "the settings"
    known = origins or {}

    def section(name: str, values: Mapping[str, str], defaults: Mapping[str, str]) -> Iterator[str]:
        yield f"[{name}]"
        for key, value in {**defaults, **values}.items():
            given = known.get((name, key), file)
            yield from _lines(name, key, value, given if key in values else _BY_DEFAULT)
        yield ""

    default = {"kafka_broker_url": settings.broker_url, "k2eg_cmd_topic": settings.command_topic}
    if settings.max_message_bytes != MAX_MESSAGE_BYTES:
        default["max_message_bytes"] = str(settings.max_message_bytes)
    overridden = settings.kafka_of_producers.keys() | settings.kafka_of_consumers.keys()
    kafka_defaults = {name: value for name, value in KAFKA_DEFAULTS.items() if name not in overridden}
    lines = [*section("DEFAULT", default, {}), *section("kafka", settings.kafka, kafka_defaults)]
    for name, properties in (("kafka.producer", settings.producer), ("kafka.consumer", settings.consumer)):
        if properties:
            lines += section(name, properties, {})
    given = settings.section("gateway")
    every = {option.name: _option_text(getattr(options, option.name)) for option in fields(GatewayOptions)}
    lines += section("gateway", {name: every[name] for name in every if name in given}, every)
    return "\n".join(lines).rstrip("\n")


def _lines(section: str, key: str, value: str, origin: str) -> Iterator[str]:
    """Yields a comment with the origin, and the line of a value."""
    variable = "K2EG_" + "".join(char if char.isalnum() else "_" for char in f"{section}_{key}").upper()
    if is_secret(key):
        yield f"; {key}: {printable(origin)}; secret: set the variable"
        yield f"{key}=${{{variable}}}"
    elif "${" in value or not value.isprintable() or value != value.strip():
        yield f"; {key}: {printable(origin)}; cannot stand in a file: set the variable"
        yield f"{key}=${{{variable}}}"
    else:
        yield f"; {key}: {printable(origin)}"
        yield f"{key}={value}"


def _option_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
