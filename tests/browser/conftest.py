"""The browser harness: a server on a copy of the notebooks, a Chromium that drives it, and one way to work the panel.

Nothing of the user's own Jupyter or browser takes part: settings, runtime files and profile are temporary, and every
request that leaves this machine is refused. A notebook's copy carries no outputs, so what the page shows was computed
by this run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
NOTEBOOK = "01_influence_functions.ipynb"
START = 90  # seconds for a server to answer
RUN = 180  # seconds for a notebook to run to its end
STEP = 30_000  # milliseconds for one reaction of the page
IN_CI = os.environ.get("CI", "").lower() in ("1", "true")


def _answer(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read()


def _until(condition, seconds, what):
    """Return the first true value of the condition; fail with what was awaited, and the last value or error."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            last = condition()
        except OSError as error:
            last, ok = error, False
        else:
            ok = bool(last)
        if ok:
            return last
        time.sleep(0.5)
    pytest.fail(f"{what}: not within {seconds} s; the last answer was {last!r}")


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def chromium_path():
    """Return the browser's path; without one, skip on a user's machine and fail in continuous integration."""
    from explainlib.doctor import BROWSERS, browser_path

    path = browser_path()
    if path is None:
        reason = f"no browser: none of {', '.join(BROWSERS)} is on the PATH; apt-get install chromium"
        (pytest.fail if IN_CI else pytest.skip)(reason)
    return path


@pytest.fixture
def page(chromium_path):
    """Return a page of a fresh browser that reaches this machine only."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=list(ARGUMENTS))
        context = browser.new_context(viewport={"width": 1400, "height": 1000})
        opened = context.new_page()
        opened.set_default_timeout(STEP)
        yield opened
        browser.close()


@pytest.fixture(scope="session")
def notebook_copies(repository):
    """Return a function that copies the notebooks into a folder, without outputs and without the exercises' solutions.

    Those are run and compared by nbval; here they would only take the time that a panel waits for.
    """

    def copy(folder):
        source = repository / "notebooks"
        assert (source / NOTEBOOK).is_file(), f"notebooks/{NOTEBOOK} is missing; the browser tests run it"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".*"))
        for path in folder.glob("*.ipynb"):
            notebook = nbformat.read(path, as_version=4)
            notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", ())]
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    cell.outputs, cell.execution_count = [], None
            nbformat.write(notebook, path)
        return folder

    return copy


def _environment(folder):
    """Return the environment of a server whose settings and runtime files all lie in the folder."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "PYTEST"))}
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    for variable, name in places.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        own[variable] = str(folder / name)
    settings = {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight stay on the page
    }
    for name, content in settings.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return own


@pytest.fixture
def serve(tmp_path, chromium_path):
    """Return a function that starts a server and returns its address: (module, arguments, folder, ready)."""
    started = []

    def start(module, arguments, folder, ready, seconds=START):
        port = _free_port()
        log = (tmp_path / f"{module}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, f"--port={port}"],
            cwd=folder,
            env=_environment(tmp_path / "jupyter"),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append((process, log))
        address = f"http://127.0.0.1:{port}"

        def answers():
            assert process.poll() is None, f"{module} ended:\n{Path(log.name).read_text()[-3000:]}"
            return _answer(address + ready)

        _until(answers, seconds, f"{module} at {address}")
        return address

    yield start
    for process, log in started:
        _stop(process)
        log.close()


def _stop(process):
    """End a server and, after ten seconds, whatever is left of its kernels."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        print(f"server {process.pid} did not end by itself")
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(10)


@pytest.fixture
def lab(serve, notebook_copies, tmp_path):
    """Return the address of a JupyterLab on a copy of the notebooks."""
    folder = notebook_copies(tmp_path / "notebooks")
    open_door = ["--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True"]
    place = [f"--ServerApp.root_dir={folder}", "--ip=127.0.0.1", "--allow-root", "--LabApp.expose_app_in_browser=True"]
    place.append("--no-browser")
    return serve("jupyterlab", [*open_door, *place], folder, "/api/status")


@pytest.fixture
def lab_as_started(serve, repository, tmp_path):
    """Return the address of a JupyterLab with the arguments of ``make lab``, on a copy of what it shows."""
    plan = subprocess.run(["make", "-n", "lab"], cwd=repository, capture_output=True, text=True, check=True).stdout
    line = next(line for line in plan.splitlines() if "jupyter lab " in line)  # inside make others follow
    arguments = line.split("jupyter lab ", 1)[1]
    folder = tmp_path / "clone"
    for name in ("notebooks", "docs"):
        shutil.copytree(repository / name, folder / name, ignore=shutil.ignore_patterns(".*"))
    open_door = ["--IdentityProvider.token=", "--ServerApp.password=", "--ip=127.0.0.1", "--allow-root", "--no-browser"]
    return serve("jupyterlab", [*open_door, *shlex.split(arguments)], folder, "/api/status")


@pytest.fixture
def run_one_cell(lab_as_started, tmp_path):
    """Return a function that runs a notebook of one cell in JupyterLab as ``make lab`` starts it: (page, code)."""

    def run(page, code):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code.strip())])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, tmp_path / "clone" / "notebooks" / "one_cell.ipynb")
        page.goto(f"{lab_as_started}/lab/tree/notebooks/one_cell.ipynb?reset")
        idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").first
        idle.wait_for(state="attached", timeout=60_000)
        asked = page.locator(".jp-CodeCell .jp-InputPrompt").first

        def running():
            """A key pressed before the page hears keys is lost, so it is pressed again."""
            page.locator(".jp-CodeCell .cm-content").first.click()
            page.keyboard.press("Shift+Enter")
            page.wait_for_timeout(1500)
            return re.search(r"[*\d]", asked.inner_text())

        _until(running, STEP / 1000, "a running cell")

    return run


@pytest.fixture
def voila(serve, notebook_copies, tmp_path):
    """Return the address of a Voila that shows the notebook."""
    folder = notebook_copies(tmp_path / "notebooks")
    return serve("voila", [".", "--Voila.ip=127.0.0.1", "--no-browser"], folder, "/voila/static/voila.js")


@pytest.fixture
def open_and_run_all(lab):
    """Return a function that opens a notebook in JupyterLab and runs all its cells: (page, name)."""

    def kernel_idle():
        sessions = json.loads(_answer(f"{lab}/api/sessions"))
        return any(s["kernel"]["execution_state"] == "idle" and s["kernel"]["connections"] > 0 for s in sessions)

    def run(page, name):
        page.goto(f"{lab}/lab/tree/{name}?reset")
        page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=60_000)
        _until(kernel_idle, 60, "an idle, connected kernel")
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        waiting = page.locator(".jp-CodeCell .jp-InputPrompt").filter(has_text="*")
        done = page.locator(".jp-CodeCell .jp-InputPrompt").filter(has_text=re.compile(r"\[\d+\]"))
        failed = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']")
        quiet = [0]

        def finished():
            """Cells far off the screen are not in the page, so ask the kernel: idle four times running is the end."""
            idle = kernel_idle() and waiting.count() == 0 and done.count() > 0
            quiet[0] = quiet[0] + 1 if idle else 0
            return quiet[0] >= 4 or failed.count()

        _until(finished, RUN, f"all cells of {name} run")
        assert failed.count() == 0, failed.first.inner_text()

    return run


@pytest.fixture
def screenshot(tmp_path):
    """Return a function that saves a picture of a page or an element under a name, and returns its path."""
    folder = Path(os.environ.get("EXPLAINLIB_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def save(what, name):
        path = folder / f"{name}.png"
        what.screenshot(path=str(path))
        assert path.stat().st_size > 2_000, f"{path} is an empty picture"
        print(f"screenshot: {path}")
        return path

    return save


@pytest.fixture
def work_the_panel():
    """Return a function that moves a panel's slider by keyboard, asks for the truth, and returns the panel.

    The function takes the page and the class of the panel's root.
    """

    def text(element):
        return " ".join(element.inner_text().split())

    def work(page, root="xl-removal-panel"):
        panel = page.locator(f".{root}").first
        panel.wait_for(state="attached", timeout=RUN * 1000)
        panel.scroll_into_view_if_needed()
        prediction, truth = panel.locator(".xl-prediction"), panel.locator(".xl-truth")
        _until(lambda: text(prediction), 30, "the first prediction")
        before, readout = text(prediction), text(panel.locator(".xl-k"))
        handle = panel.locator(".xl-k .noUi-handle")
        handle.focus()
        for _ in range(3):
            handle.press("ArrowRight")
        _until(lambda: text(prediction) != before, 30, "another prediction after the slider moved")
        assert text(panel.locator(".xl-k")) != readout
        # the page holds back the slider's last value while the kernel works, but no click: wait for the last answer
        number = text(panel.locator(".xl-k .widget-readout"))
        answer = re.compile(rf"\b{number} of \d+ [^;]*; predicted")
        _until(lambda: answer.search(text(panel)), 60, f"the answer for {number}")
        # the notebook's own cells may have asked for the truth; it has to go when the choice changes
        _until(lambda: "retrained" not in text(truth).lower(), 30, "no truth before anybody asked for it")

        panel.get_by_role("button", name="Retrain").click()
        _until(lambda: "retrained" in text(truth).lower(), 60, "the retrained truth")
        return panel

    return work
