"""Completion scripts; the one for bash is run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from k2eg.cli.commands.completion import SHELLS, script

_COMPLETE = """
source "$1"; shift
COMP_WORDS=(k2eg "$@"); COMP_CWORD=$#
_shtab_k2eg; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "k2eg.bash"
    path.write_text(script("bash"))
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["hist"], {"history"}),
        (["gateway", "st"], {"status"}),
        (["env", "sh"], {"show"}),
        (["get", "--ter"], {"--terse"}),
        (["-e", "la"], {"lab"}),
        (["history", "-e", "de"], {"demo"}),
        (["env", "show", "l"], {"lab", "local"}),
        (["get", "pva://lab:"], {"pva://lab:x", "pva://lab:y"}),
        (["monitor", "pva://lab:x", "other"], {"other:z"}),
        (["doctor", "nothing"], set()),
    ],
)
def test_bash_completes(bash_script: Path, tmp_path: Path, words: list[str], found: set[str]) -> None:
    (tmp_path / "lab.ini").touch()
    (tmp_path / "k2eg").mkdir()
    (tmp_path / "k2eg" / "pvs").write_text("pva://lab:x\nother:z\npva://lab:y\n")
    variables = {"XDG_CACHE_HOME": str(tmp_path), "K2EG_PYTHON_CONFIGURATION_PATH_FOLDER": str(tmp_path), "PATH": ""}
    bash = shutil.which("bash") or ""
    command = [bash, "--norc", "-c", _COMPLETE, "bash", str(bash_script), *words]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == found, done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script_with_commands_environments_and_pvs(shell: str) -> None:
    text = script(shell)
    assert all(word in text for word in ("history", "_k2eg_pvs", "_k2eg_environments", "secured-site"))
