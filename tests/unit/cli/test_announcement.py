import os
import socket
from pathlib import Path

import pytest

from k2eg.cli.announcement import Announcement, DemoError, require_demo
from k2eg_rx.settings import DEMO_BROKER_VARIABLE, Settings


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "folder" / "broker"
    monkeypatch.setenv(DEMO_BROKER_VARIABLE, str(path))
    return path


def settings(address: str) -> Settings:
    return Settings("demo", address, "commands", "replies")


def test_the_address_is_left_for_its_user_only_and_taken_away(path: Path) -> None:
    announcement = Announcement()
    announcement.check()
    announcement.publish("127.0.0.1:1234")
    assert path.read_text() == "127.0.0.1:1234\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["broker"]
    announcement.withdraw()
    announcement.withdraw()
    assert os.listdir(path.parent) == []


def test_a_second_demo_is_refused_early_and_late(path: Path) -> None:
    first, second = Announcement(), Announcement()
    first.publish("127.0.0.1:1")
    with pytest.raises(DemoError, match=r"running already.*127\.0\.0\.1:1"):
        second.check()
    with pytest.raises(DemoError, match="running already"):
        second.publish("127.0.0.1:2")
    second.withdraw()
    assert path.read_text() == "127.0.0.1:1\n"
    assert os.listdir(path.parent) == ["broker"]
    first.withdraw()
    second.publish("127.0.0.1:2")
    assert path.read_text() == "127.0.0.1:2\n"
    second.withdraw()


def test_the_file_of_a_dead_demo_is_taken_over(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("127.0.0.1:1\n")  # nobody holds its lock
    announcement = Announcement()
    announcement.check()
    announcement.publish("127.0.0.1:2")
    assert path.read_text() == "127.0.0.1:2\n"
    with pytest.raises(DemoError):
        Announcement().check()
    announcement.withdraw()
    assert not path.exists()


def test_a_file_that_is_no_longer_ours_stays(path: Path) -> None:
    announcement = Announcement()
    announcement.publish("127.0.0.1:1")
    path.unlink()
    path.write_text("somebody else's\n")
    announcement.withdraw()
    assert path.read_text() == "somebody else's\n"


def test_a_file_that_cannot_be_written_is_told(path: Path) -> None:
    path.parent.write_text("a file where the folder should be")
    with pytest.raises(DemoError, match="cannot leave the broker's address"):
        Announcement().publish("127.0.0.1:1")


def test_settings_of_a_live_broker_pass(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        address = f"127.0.0.1:{broker.getsockname()[1]}"
        announcement = Announcement()
        announcement.publish(address)
        require_demo(settings(address))
        announcement.withdraw()


def test_a_dead_demos_address_is_refused_in_words(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        address = f"127.0.0.1:{broker.getsockname()[1]}"
    path.parent.mkdir()
    path.write_text(address)
    with pytest.raises(DemoError, match=rf"no demo is running: nothing answers at {address}.*k2eg demo"):
        require_demo(settings(address))


def test_other_environments_are_left_alone(path: Path) -> None:
    require_demo(settings("127.0.0.1:1"))  # no file at all
    path.parent.mkdir()
    path.write_text("127.0.0.1:2")
    require_demo(settings("127.0.0.1:1"))


def test_a_file_with_rubbish_is_no_demo(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("rubbish")
    with pytest.raises(DemoError, match="no demo is running"):
        require_demo(settings("rubbish"))
