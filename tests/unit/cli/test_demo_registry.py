import os
import socket
from pathlib import Path

import pytest

from k2eg.cli.demo_registry import DemoError, DemoRegistration, require_running_demo
from k2eg_rx.settings import DEMO_BROKER_VARIABLE, Settings


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "folder" / "broker"
    monkeypatch.setenv(DEMO_BROKER_VARIABLE, str(path))
    return path


def settings(address: str) -> Settings:
    return Settings("demo", address, "commands", "replies")


def test_the_address_is_readable_by_its_user_only_and_removed_at_the_end(path: Path) -> None:
    registration = DemoRegistration()
    registration.check()
    registration.register("127.0.0.1:1234")
    assert path.read_text() == "127.0.0.1:1234\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["broker"]
    registration.unregister()
    registration.unregister()
    assert os.listdir(path.parent) == []


def test_a_second_demo_is_rejected_by_check_and_by_register(path: Path) -> None:
    first, second = DemoRegistration(), DemoRegistration()
    first.register("127.0.0.1:1")
    with pytest.raises(DemoError, match=r"running already.*127\.0\.0\.1:1"):
        second.check()
    with pytest.raises(DemoError, match="running already"):
        second.register("127.0.0.1:2")
    second.unregister()
    assert path.read_text() == "127.0.0.1:1\n"
    assert os.listdir(path.parent) == ["broker"]
    first.unregister()
    second.register("127.0.0.1:2")
    assert path.read_text() == "127.0.0.1:2\n"
    second.unregister()


def test_the_file_of_a_killed_demo_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("127.0.0.1:1\n")  # not locked
    registration = DemoRegistration()
    registration.check()
    registration.register("127.0.0.1:2")
    assert path.read_text() == "127.0.0.1:2\n"
    with pytest.raises(DemoError):
        DemoRegistration().check()
    registration.unregister()
    assert not path.exists()


def test_a_file_replaced_by_another_program_is_kept(path: Path) -> None:
    registration = DemoRegistration()
    registration.register("127.0.0.1:1")
    path.unlink()
    path.write_text("another program's\n")
    registration.unregister()
    assert path.read_text() == "another program's\n"


def test_a_file_that_cannot_be_written_raises_demo_error(path: Path) -> None:
    path.parent.write_text("a file where the folder should be")
    with pytest.raises(DemoError, match="cannot write the broker's address"):
        DemoRegistration().register("127.0.0.1:1")


def test_settings_of_a_running_broker_are_accepted(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        address = f"127.0.0.1:{broker.getsockname()[1]}"
        registration = DemoRegistration()
        registration.register(address)
        require_running_demo(settings(address))
        registration.unregister()


def test_the_address_of_a_killed_demo_raises_demo_error(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as broker:
        address = f"127.0.0.1:{broker.getsockname()[1]}"
    path.parent.mkdir()
    path.write_text(address)
    with pytest.raises(DemoError, match=rf"no demo is running: .*{address}, does not answer.*k2eg demo"):
        require_running_demo(settings(address))


def test_other_environments_are_accepted(path: Path) -> None:
    require_running_demo(settings("127.0.0.1:1"))  # no file at all
    path.parent.mkdir()
    path.write_text("127.0.0.1:2")
    require_running_demo(settings("127.0.0.1:1"))


def test_a_file_without_an_address_raises_demo_error(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("rubbish")
    with pytest.raises(DemoError, match="no demo is running"):
        require_running_demo(settings("rubbish"))
