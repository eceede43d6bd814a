"""An environment: where the broker is, which topics to use, and what to tell librdkafka.

In: an ``.ini`` file by the environment's name. Out: a frozen `Settings`, read once. Any thread.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FOLDER_VARIABLE = "K2EG_PYTHON_CONFIGURATION_PATH_FOLDER"
DEMO_BROKER_VARIABLE = "K2EG_DEMO_BROKER_FILE"

# A body of empty maps takes about 70 times its size once it is decoded: some 1.2 GB at worst. A camera's image of five
# million 16-bit pixels fits, and brokers take no more than 1 MiB unless they are told to.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_APP_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Settings:
    """One environment, for one application.

    Attributes:
        environment_id: The name of the environment: of its file, without ``.ini``.
        broker_url: Kafka's bootstrap servers, ``host:port`` separated by commas.
        command_topic: Where the gateway takes commands from.
        reply_topic: Where this application gets its replies.
        kafka: Properties for librdkafka. Not shown in `repr`: there may be secrets in it.
        sections: The other sections, such as ``[gateway]``, as they stand.
        source: The file it came from.
        max_message_bytes: The largest body that is decoded; what is larger is skipped and counted.
    """

    environment_id: str
    broker_url: str
    command_topic: str
    reply_topic: str
    kafka: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]], repr=False)
    source: Path | None = None
    max_message_bytes: int = MAX_MESSAGE_BYTES

    def section(self, name: str) -> Mapping[str, str]:
        """Returns a section of the file, empty if it has none of that name."""
        return self.sections.get(name, {})


def shipped_folder() -> Path:
    """Returns the folder with the environments that come with the package."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"  # the second: an editable install


def configuration_folder() -> Path:
    """Returns the folder that environments are read from: the named one, else the one that comes with the package."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser() if named else shipped_folder()


def environments(folder: Path | None = None) -> list[str]:
    """Returns the names of the environments there are."""
    folder = folder or configuration_folder()
    return sorted(path.stem for path in folder.glob("*.ini"))


def demo_broker_file() -> Path:
    """Returns the file in which a running demo leaves its broker's address, one per user."""
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
        raise ValueError(f"{path}: [DEFAULT] has no {key}")
    return _expand(value, f"{path}: {key}")


def _broker_url(values: Mapping[str, str], path: Path) -> str:
    """The broker's address; `demo` stands for the one a running demo has left in its file."""
    url = _required(values, "kafka_broker_url", path)
    if url != "demo":
        return url
    try:
        return demo_broker_file().read_text().strip()
    except OSError:
        raise ValueError(
            f"environment {path.stem!r}: no demo is running (no {demo_broker_file()}); start one by `k2eg demo`"
        ) from None


def _reply_topic(values: Mapping[str, str], app_name: str, path: Path) -> str:
    pattern = values.get("reply_topic", "").strip() or "{app_name}-reply"
    return _expand(pattern, f"{path}: reply_topic").replace("{app_name}", app_name)


def _max_message_bytes(values: Mapping[str, str], path: Path) -> int:
    text = values.get("max_message_bytes", "").strip() or str(MAX_MESSAGE_BYTES)
    if not text.isdecimal() or int(text) == 0:
        raise ValueError(f"{path}: max_message_bytes: {text!r} is not a whole number above 0")
    return int(text)


def _parse(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(), source=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    except configparser.Error as error:
        # the parser's own text quotes the line, which may hold a password
        raise ValueError(f"{path}: is not a valid .ini file ({type(error).__name__})") from None
    return parser


def check_app_name(app_name: str) -> None:
    """Raises ValueError for a name that no application can have."""
    if not app_name:
        raise ValueError("app_name is missing: it names the application and its reply topic")
    if not _APP_NAME.fullmatch(app_name):
        raise ValueError(
            f"app_name {app_name!r}: only letters, digits, '.', '_' and '-', for a topic is named after it"
        )


def load_settings(environment_id: str, app_name: str, folder: Path | None = None) -> Settings:
    """Returns the settings of an environment.

    Args:
        environment_id: The name of its file, without ``.ini``.
        app_name: The application's name: letters, digits, ``.``, ``_``, ``-``; the reply topic follows from it.
        folder: Where to look; by default the folder named by K2EG_PYTHON_CONFIGURATION_PATH_FOLDER, else the
            environments that come with the package.

    Raises:
        ValueError: There is no such environment, or something in its file is missing or wrong.
    """
    check_app_name(app_name)
    folder = folder or configuration_folder()
    known = environments(folder)
    if environment_id not in known:
        raise ValueError(
            f"no environment {environment_id!r} in {folder}; there is {', '.join(known) or 'none'}"
            f" (set {FOLDER_VARIABLE} to look elsewhere)"
        )
    path = folder / f"{environment_id}.ini"
    parser = _parse(path)
    defaults = parser.defaults()
    own = {
        name: {key: value for key, value in parser.items(name) if parser.has_option(name, key) and key not in defaults}
        for name in parser.sections()
    }
    kafka = {key: _expand(value, f"{path}: [kafka] {key}") for key, value in own.pop("kafka", {}).items()}
    return Settings(
        environment_id=environment_id,
        broker_url=_broker_url(defaults, path),
        command_topic=_required(defaults, "k2eg_cmd_topic", path),
        reply_topic=_reply_topic(defaults, app_name, path),
        kafka=kafka,
        max_message_bytes=_max_message_bytes(defaults, path),
        sections=own,
        source=path,
    )
