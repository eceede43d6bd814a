"""Settings of an environment, read from an ``.ini`` file: broker, topics, librdkafka properties.

Thread safety: `Settings` are immutable.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from k2eg_rx.pv import PULSE_ID_MASK, check_pulse_id_mask, is_topic_name
from k2eg_rx.texts import printable, shown

FOLDER_VARIABLE = "K2EG_PYTHON_CONFIGURATION_PATH_FOLDER"
DEMO_BROKER_VARIABLE = "K2EG_DEMO_BROKER_FILE"

# A body of empty maps takes about 70 times its size when decoded: 1.2 GB at worst. A camera image of five million
# 16-bit pixels fits; brokers accept at most 1 MiB by default.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

_EVENTS_TOPIC_FROM = 100  # PVs; `benchmarks/shared_topic.py` measures what it saves

DEMO_KAFKA: Mapping[str, str] = {
    "fetch.wait.max.ms": "5",  # the embedded broker replies to a fetch only after this time
    "session.timeout.ms": "6000",  # a rebalance of the embedded broker takes this time less one second
}
"""librdkafka properties for the broker of `k2eg demo`."""

_DEFAULT = "DEFAULT"
_KEYS = (  # of [DEFAULT]
    "kafka_broker_url",
    "k2eg_cmd_topic",
    "reply_topic",
    "max_message_bytes",
    "events_topic",
    "events_topic_from",
    "pulse_id_mask",
)
# The transport knows the keys of [kafka...], the gateway those of [gateway].
_SECTIONS = (_DEFAULT, "kafka", "kafka.producer", "kafka.consumer", "gateway", "cli")

_LONGEST_PATH = 4000  # characters
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_NAME = re.compile(
    r"password|secret|\.pem$|token|jaas|private|sasl\.oauthbearer\.config|assertion", re.IGNORECASE
)
_APP_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one application in one environment.

    Attributes:
        environment_id: The environment's name: that of its file, without ``.ini``.
        broker_url: Kafka's bootstrap servers, ``host:port`` separated by commas.
        command_topic: The topic from which the gateway reads commands.
        reply_topic: The topic to which the gateway sends this application's replies.
        kafka: librdkafka properties. Hidden in `repr` because they may contain secrets.
        producer: Further ones of producers and admin clients, ``[kafka.producer]``. Hidden in `repr` too.
        consumer: Further ones of consumers, ``[kafka.consumer]``. Hidden in `repr` too.
        events_topic: A topic that many PVs share, for streams of many PVs; empty for none.
        sections: The other sections of the file, ``[gateway]`` and ``[cli]``, unchanged. Hidden in `repr` too.
        pulse_id_mask: The bits of a time stamp's nanoseconds that hold the pulse id; by default LCLS's 17.
        events_topic_from: The number of PVs from which on a stream uses `events_topic`; with fewer, a client would read
            more events of others than requests to Kafka are saved.
        source: The file, or None.
        max_message_bytes: The largest record body in bytes that is decoded; larger ones are skipped and counted.
    """

    environment_id: str
    broker_url: str
    command_topic: str
    reply_topic: str
    kafka: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]], repr=False)
    source: Path | None = None
    max_message_bytes: int = MAX_MESSAGE_BYTES
    producer: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    consumer: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    events_topic: str = ""
    pulse_id_mask: int = PULSE_ID_MASK
    events_topic_from: int = _EVENTS_TOPIC_FROM

    @property
    def kafka_of_producers(self) -> Mapping[str, str]:
        """Returns the properties of producers and admin clients, those of `producer` over those of `kafka`."""
        return {**self.kafka, **self.producer}

    @property
    def kafka_of_consumers(self) -> Mapping[str, str]:
        """Returns the properties of consumers, those of `consumer` over those of `kafka`."""
        return {**self.kafka, **self.consumer}

    def section(self, name: str) -> Mapping[str, str]:
        """Returns a section of the file, or an empty map if the file does not have it."""
        return self.sections.get(name, {})


def is_secret(name: str) -> bool:
    """Returns whether the value of a librdkafka property is secret, by the property's name."""
    return _SECRET_NAME.search(name) is not None


def shipped_folder() -> Path:
    """Returns the folder of the environments that are part of this package."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"  # the second for an editable install


def configuration_folder() -> Path:
    """Returns the folder of environments: that of K2EG_PYTHON_CONFIGURATION_PATH_FOLDER, or else the shipped one."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser() if named else shipped_folder()


def _folder(folder: Path) -> Path:
    path = Path(folder)
    if len(str(path)) > _LONGEST_PATH:
        raise ValueError(f"folder must be a path of at most {_LONGEST_PATH} characters, got {shown(str(path))}")
    return path


def environments(folder: Path | None = None) -> list[str]:
    """Returns the names of the environments in a folder, by default `configuration_folder`."""
    folder = configuration_folder() if folder is None else _folder(folder)
    return sorted(path.stem for path in folder.glob("*.ini"))


def environment_file(environment_id: str, folder: Path | None = None) -> Path:
    """Returns the file of an environment.

    Args:
        environment_id: The file's name, without ``.ini``.
        folder: Its folder; by default `configuration_folder`, and then `shipped_folder`.

    Raises:
        ValueError: There is none; the text lists the environments that exist.
    """
    where = configuration_folder() if folder is None else _folder(folder)
    folders = [where, shipped_folder()] if folder is None and where != shipped_folder() else [where]
    names = {place: environments(place) for place in folders}
    for place, known in names.items():
        if isinstance(environment_id, str) and environment_id in known:  # pyright: ignore[reportUnnecessaryIsInstance]
            return place / f"{environment_id}.ini"
    packaged = f"; part of k2eg: {', '.join(names[folders[1]])}" if len(folders) > 1 else ""
    raise ValueError(
        f"no environment {shown(environment_id)} in {where}; available: {', '.join(names[where]) or 'none'}"
        f" (set {FOLDER_VARIABLE} to look elsewhere){packaged}"
    )


def demo_broker_file() -> Path:
    """Returns the file to which a running demo writes its broker's address, one per user."""
    named = os.environ.get(DEMO_BROKER_VARIABLE)
    if named:
        return Path(named)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) if runtime and Path(runtime).is_dir() else Path.home() / ".cache"
    return folder / "k2eg-demo-broker"


def _expand(text: str, where: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ValueError(f"{where}: the environment variable {name} is not set")
        return os.environ[name]

    return _VARIABLE.sub(value, text)


def _required(values: Mapping[str, str], key: str, path: Path) -> str:
    value = values.get(key, "").strip()
    if not value:
        raise ValueError(f"{path}: [DEFAULT] must have a value for {key}")
    return _expand(value, f"{path}: {key}")


def _broker_url(values: Mapping[str, str], path: Path) -> str:
    """Returns the broker's address; for `demo` it is read from the file of the running demo."""
    url = _required(values, "kafka_broker_url", path)
    if url != "demo":
        return url
    try:
        return demo_broker_file().read_text().strip()
    except OSError:
        raise ValueError(
            f"environment {path.stem!r}: no demo is running (no {demo_broker_file()}); start one with `k2eg demo`"
        ) from None


def _is_demo(broker_url: str) -> bool:
    """Returns whether an address is that of this user's demo, whatever the environment."""
    try:
        return demo_broker_file().read_text().strip() == broker_url
    except OSError:
        return False


def _reply_topic(values: Mapping[str, str], app_name: str, path: Path) -> str:
    pattern = values.get("reply_topic", "").strip() or "{app_name}-reply"
    return _expand(pattern, f"{path}: reply_topic").replace("{app_name}", app_name)


def _count(values: Mapping[str, str], name: str, default: int, path: Path) -> int:
    text = values.get(name, "").strip() or str(default)
    if not text.isdecimal() or len(text) > 10 or int(text) == 0:
        raise ValueError(f"{path}: {name} must be a whole number above 0, got {shown(text)}")
    return int(text)


def _events_topic(values: Mapping[str, str], path: Path) -> str:
    topic = _expand(values.get("events_topic", "").strip(), f"{path}: events_topic")
    if topic and not is_topic_name(topic):
        raise ValueError(f"{path}: events_topic must be the name of a Kafka topic, got {shown(topic)}")
    return topic


def _pulse_id_mask(values: Mapping[str, str], path: Path) -> int:
    text = values.get("pulse_id_mask", "").strip()
    if not text:
        return PULSE_ID_MASK
    try:
        return check_pulse_id_mask(int(text, 0))
    except ValueError:
        raise ValueError(
            f"{path}: pulse_id_mask must be two or more adjacent bits of the lower 30, such as 0x1FFFF,"
            f" got {shown(text)}"
        ) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint at the known name that a misspelt one resembles most, or else at all known names."""
    import difflib  # noqa: PLC0415 - for mistakes only

    options = list(known)
    lower = {option.lower(): option for option in options}
    found = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"did you mean {lower[found[0]]}?" if found else f"known are {', '.join(options)}"


def _unknown_names(sections: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yields each unknown section, and each unknown key of [DEFAULT], with what is wrong with it."""
    for section in sections:
        if section not in _SECTIONS:
            yield section, "", f"unknown section [{printable(section, 80)}]: {nearest(section[:80], _SECTIONS)}"
    for key in sections.get(_DEFAULT, {}):
        if key not in _KEYS:
            hint = "librdkafka's properties belong into [kafka]" if "." in key else nearest(key[:80], _KEYS)
            yield _DEFAULT, key, f"unknown key {printable(key, 80)} in [DEFAULT]: {hint}"


def line_of(text: str, section: str, key: str = "") -> int:
    """Returns the number of the line of a section, or of a key in it, in the text of an environment file; 0: none."""
    present = ""
    for number, line in enumerate(text.splitlines(), 1):
        if heading := configparser.ConfigParser.SECTCRE.match(line.strip()):
            present = heading["header"]
            if present == section and not key:
                return number
        elif present == section and key and re.split("[=:]", line, maxsplit=1)[0].strip().lower() == key:
            return number
    return 0


def unknown_names(path: Path) -> list[str]:
    """Returns the faults of all unknown sections and keys of an environment file, which would have no effect.

    The transport knows the keys of [kafka...], the gateway those of [gateway].

    Raises:
        ValueError: The file cannot be read.
    """
    text = _read(path)
    found = ((line_of(text, section, key), fault) for section, key, fault in _unknown_names(_parse(text, path)))
    return [f"{path}:{line}: {fault}" for line, fault in sorted(found)]


def unset_variables(path: Path) -> list[str]:
    """Returns a text for each use of an environment variable that is not set.

    Raises:
        ValueError: The file cannot be read.
    """
    text = _read(path)
    found: list[tuple[int, str]] = []
    for section, values in _parse(text, path).items():
        if section not in (_DEFAULT, "kafka", "kafka.producer", "kafka.consumer"):
            continue
        for key, value in values.items():
            unset = (name for name in _VARIABLE.findall(value) if name not in os.environ)
            found.extend((line_of(text, section, key), name) for name in unset)
    return [f"{path}:{line}: the environment variable {name} is not set" for line, name in sorted(found)]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None


def _parse(text: str, path: Path) -> dict[str, Mapping[str, str]]:
    """Returns the sections of a file, [DEFAULT] as one of them, so that no key passes into the others."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(text, source=str(path))
    except configparser.Error as error:
        # without the parser's text, which quotes the line: it may contain a password
        wrong: list[tuple[int, str]] = getattr(error, "errors", [])  # of a ParsingError; others have one line
        line: int = wrong[0][0] if wrong else getattr(error, "lineno", 0)
        raise ValueError(f"{path}:{line}: is not a valid .ini file ({type(error).__name__})") from None
    return {name: dict(parser.items(name)) for name in parser.sections()}


def check_app_name(app_name: str) -> None:
    """Checks an application's name. Raises ValueError if it is empty or cannot be part of a topic's name."""
    if not isinstance(app_name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users pass anything
        raise ValueError(f"app_name must be a string, got {shown(app_name)}")
    if not app_name:
        raise ValueError("app_name must not be empty: it names the application and its reply topic")
    if not _APP_NAME.fullmatch(app_name):
        raise ValueError(
            f"app_name must consist of letters, digits, '.', '_' and '-', got {shown(app_name)}; it names a topic"
        )


def check_group_name(group_name: str) -> None:
    """Checks the name of a consumer group of clients.

    Raises:
        ValueError: The name is empty or contains "k2eg".
    """
    if not group_name:
        raise ValueError("group_name must not be empty: leave it out to receive every event")
    if "k2eg" in group_name.lower():
        raise ValueError(
            f"group_name must not contain 'k2eg', got {group_name!r}: gateways ignore such groups and would stop the"
            " monitors"
        )


def load_settings(environment_id: str, app_name: str, folder: Path | None = None) -> Settings:
    """Returns the settings of an environment.

    Args:
        environment_id: The name of the environment's file, without ``.ini``.
        app_name: The application's name: letters, digits, ``.``, ``_``, ``-``. It replaces ``{app_name}`` in the
            file's ``reply_topic``.
        folder: The folder of the file; by default `configuration_folder`, and for an environment that it does not
            have, `shipped_folder`.

    Raises:
        ValueError: The environment does not exist, or its file lacks a key or has an invalid or unknown one.
    """
    check_app_name(app_name)
    path = environment_file(environment_id, folder)
    if faults := unknown_names(path):
        raise ValueError(faults[0])
    own = _parse(_read(path), path)
    defaults = own.pop(_DEFAULT, {})

    def properties(section: str) -> Mapping[str, str]:
        values = own.pop(section, {})
        return {key: _expand(value, f"{path}: [{section}] {key}") for key, value in values.items()}

    broker_url = _broker_url(defaults, path)
    return Settings(
        environment_id=environment_id,
        broker_url=broker_url,
        command_topic=_required(defaults, "k2eg_cmd_topic", path),
        reply_topic=_reply_topic(defaults, app_name, path),
        kafka={**(DEMO_KAFKA if _is_demo(broker_url) else {}), **properties("kafka")},
        producer=properties("kafka.producer"),
        consumer=properties("kafka.consumer"),
        max_message_bytes=_count(defaults, "max_message_bytes", MAX_MESSAGE_BYTES, path),
        events_topic=_events_topic(defaults, path),
        events_topic_from=_count(defaults, "events_topic_from", _EVENTS_TOPIC_FROM, path),
        pulse_id_mask=_pulse_id_mask(defaults, path),
        sections=own,
        source=path,
    )
