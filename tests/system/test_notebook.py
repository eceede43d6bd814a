"""Runs the example notebook, and cells as front ends send them, in a real kernel against the embedded stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import KernelManager

from k2eg_rx.embedded import EmbeddedStack
from k2eg_rx.settings import DEMO_BROKER_VARIABLE

EXAMPLE = Path(__file__).parents[2] / "examples" / "notebook.ipynb"
WITHIN = 100  # seconds for a kernel to start, and for each cell, on a busy machine
# In a process of its own, as nbclient leaves sockets and handlers behind.
EXECUTE = f"""
import json, sys, nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
manager = AsyncKernelManager(**json.loads(sys.argv[3]))
NotebookClient(notebook, km=manager, timeout={WITHIN}, startup_timeout={WITHIN}).execute()
nbformat.write(notebook, sys.argv[2])
"""
PVS = ["pva://demo:sine10", "pva://demo:bpm1"]


@pytest.fixture(scope="module")
def kernel_environment(stack: EmbeddedStack) -> Iterator[dict[str, str]]:
    """Returns the environment of a kernel that uses the stack as its demo; its files are in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="k2eg") as folder, pytest.MonkeyPatch.context() as own:
        (Path(folder) / "broker").write_text(stack.broker_address)
        own.setenv(DEMO_BROKER_VARIABLE, f"{folder}/broker")
        own.delenv("K2EG_PYTHON_CONFIGURATION_PATH_FOLDER", raising=False)
        own.setenv("IPYTHONDIR", f"{folder}/ipython")
        own.setenv("JUPYTER_RUNTIME_DIR", folder)
        own.setenv("JUPYTER_PLATFORM_DIRS", "1")
        yield dict(os.environ)


def of_folder(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns options of a kernel that is reached by Unix sockets in the folder, so that no port can be taken."""
    folder = environment["JUPYTER_RUNTIME_DIR"]
    return {"kernel_name": "python3", "transport": "ipc", "connection_file": f"{folder}/{uuid.uuid4().hex[:8]}.json"}


def html_of(cell: Mapping[str, Any]) -> str:
    """Returns the HTML that a cell shows."""
    return "".join(output["data"].get("text/html", "") for output in cell["outputs"] if "data" in output)


def test_the_example_notebook_runs(kernel_environment: dict[str, str], tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLE, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs of the example"
    command = [
        sys.executable,
        "-c",
        EXECUTE,
        EXAMPLE,
        tmp_path / "run.ipynb",
        json.dumps(of_folder(kernel_environment)),
    ]
    done = subprocess.run(
        command, env=kernel_environment, cwd=tmp_path, capture_output=True, text=True, timeout=2 * WITHIN, check=False
    )
    assert done.returncode == 0, done.stderr
    cells = {cell["id"]: cell for cell in nbformat.read(tmp_path / "run.ipynb", as_version=4).cells}
    assert "demo:temperature" in html_of(cells["connect"])
    assert all(name in html_of(cells["snapshot"]) for name in ("demo:sine1", "demo:sum", "demo:mode"))
    table = html_of(cells["table"])
    assert table.endswith("<div>stopped</div>")
    assert "demo:sine10" in table
    assert ("<svg" in html_of(cells["plot"]), "demo:sine10" in html_of(cells["plot"])) == (True, True)
    assert html_of(cells["plot"]).endswith("<div>ended</div>")
    assert "20.0" in html_of(cells["frame"])
    assert cells["await"]["outputs"][0]["text"].startswith("PVUpdate('demo:sine10', ")


class Kernel:
    """A kernel, and its client as of a front end."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.manager = KernelManager(**of_folder(environment))
        self.manager.start_kernel(env=environment)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=WITHIN)

    def send(self, code: str, cell: str | None = None) -> str:
        """Starts a cell; returns the id of its message."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        message = self.client.session.msg("execute_request", content, metadata={"cellId": cell} if cell else {})
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def until(self, happened: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Returns the first message of the kernel's output of which a condition holds."""
        while True:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=WITHIN)
            assert message["msg_type"] != "error", "\n".join(message["content"]["traceback"])
            if happened(message):
                return message

    def run(self, code: str, cell: str | None = None) -> str:
        """Runs a cell to its end; returns what it printed."""
        sent, printed = self.send(code, cell), [""]

        def ended(message: dict[str, Any]) -> bool:
            if message["parent_header"].get("msg_id") != sent:
                return False
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])
            return message["content"].get("execution_state") == "idle"

        self.until(ended)
        return "".join(printed)


def is_drawing(message: dict[str, Any]) -> bool:
    """Whether a message has a new picture of PVs."""
    return message["msg_type"] == "update_display_data" and "demo:" in message["content"]["data"]["text/html"]


@pytest.fixture(scope="module")
def kernel(kernel_environment: dict[str, str]) -> Iterator[Kernel]:
    """A kernel with a client of the stack."""
    kernel = Kernel(kernel_environment)
    try:
        kernel.run("from k2eg_rx import ClientClosedError, notebook")
        kernel.run("client = notebook.connect('demo', 'test-notebook')")
        yield kernel
    finally:
        kernel.client.stop_channels()
        kernel.manager.shutdown_kernel(now=True)


def test_a_cell_that_runs_again_stops_its_view(kernel: Kernel) -> None:
    kernel.run("views = []")
    show = f"views.append(notebook.display(client.monitor_many_stream({PVS})))"
    for cell in ("a", "b", "b"):
        kernel.run(show, cell)
    running = "print(*(view.running for view in views))"
    assert kernel.run(running) == "True False True\n"
    kernel.run("pass", "b")  # its new text shows nothing
    assert kernel.run(running) == "True False False\n"
    kernel.run("client.close()")
    assert kernel.run("[view.wait() for view in views]; " + running) == "False False False\n"


def test_a_cell_without_an_id_is_known_by_its_text(kernel: Kernel) -> None:
    kernel.run("client = notebook.connect('demo', 'test-notebook'); views = []")
    for _ in range(2):
        kernel.run(f"views.append(notebook.display(client.monitor_many_stream({PVS}), kind='plot'))")
    assert kernel.run("print(*(view.running for view in views))") == "False True\n"


def test_an_interrupt_stops_a_view_that_is_waited_for(kernel: Kernel) -> None:
    kernel.run("client = notebook.connect('demo', 'test-notebook')")
    kernel.send(f"view = notebook.display(client.monitor_many_stream({PVS})).wait(); print('goes on', view.running)")
    for _ in range(5):  # so many that the cell has come to its wait
        kernel.until(is_drawing)
    kernel.manager.interrupt_kernel()
    assert kernel.until(lambda message: message["msg_type"] == "stream")["content"]["text"] == "goes on False\n"


def test_the_cell_that_connects_leaves_one_client(kernel: Kernel) -> None:
    connect = "former, client = client, notebook.connect('demo', 'test-notebook')"
    assert kernel.run(f"{connect}; print(client.get('pva://demo:sum', timeout={WITHIN}).name)") == "demo:sum\n"
    ask = "try:\n    former.get('pva://demo:sum')\nexcept ClientClosedError:\n    print('closed')"
    assert kernel.run(ask) == "closed\n"
