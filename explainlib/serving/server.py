"""Voila on the pages of the panels, its kernels forks of this process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

import nbformat

from explainlib.checks import require_count
from explainlib.panels.interactive import close_all
from explainlib.serving.forks import KernelForks
from explainlib.serving.pages import PAGES, open_panel, page_notebook

KERNEL = Path(__file__).with_name("kernel.py")
TEMPLATE = "explainlib"
# Voila's page without the icons that it asks a public server for: a class room may have no way there.
PAGE = """{%- extends 'voila/templates/lab/index.html.j2' -%}
{% import "spinner.macro.html.j2" as spinner %}
{%- block notebook_css -%}
{{ resources.include_js("static/voila-style.js") }}
{{ spinner.css() }}
<style>.jp-mod-noOutputs.jp-mod-noInput { display: none; }</style>
{{ super.super() }}
{%- endblock notebook_css -%}
"""
LIST = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>explainlib: the panels</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }
li { margin: 0 0 1rem; } a { font-weight: bold; }
</style></head><body><main><h1>The panels</h1>
<p>Remove training data, see what is predicted at once, and ask for the truth. Each page is your own copy; closing it
forgets what you did.</p><ul>ITEMS</ul></main></body></html>
"""


def write_pages(folder: Path, address: Path) -> dict[str, str]:
    """Write pages, template and kernel below the folder, and return the environment in which Voila finds them."""
    pages, data = folder / "pages", folder / "jupyter"
    template, kernel = data / "voila" / "templates" / TEMPLATE, data / "kernels" / "python3"
    for made in (pages, template, kernel):
        made.mkdir(parents=True)
    for name in PAGES:
        nbformat.write(page_notebook(name), pages / f"{name}.ipynb")
    items = "".join(
        f'<li><a href="{{{{ base_url }}}}voila/render/{name}.ipynb">{escape(page.title)}</a><br>'
        f"{escape(page.words)}</li>"
        for name, page in PAGES.items()
    )
    (template / "conf.json").write_text(json.dumps({"base_template": "lab"}))
    (template / "index.html.j2").write_text(PAGE)
    (template / "tree.html").write_text(LIST.replace("ITEMS", items))
    argv = [sys.executable, "-I", "-S", str(KERNEL), str(address), "{connection_file}"]
    kernelspec = {"argv": argv, "display_name": "fork", "language": "python", "interrupt_mode": "message"}
    (kernel / "kernel.json").write_text(json.dumps(kernelspec))
    found = os.pathsep.join(filter(None, [str(data), os.environ.get("JUPYTER_PATH")]))
    return {**os.environ, "JUPYTER_PATH": found, "TQDM_DISABLE": "1"}


def _warm() -> None:
    """Solve the problem of every page, and leave no widget behind: a browser would be sent those too."""
    with contextlib.redirect_stderr(io.StringIO()):
        for name in PAGES:
            open_panel(name)
    close_all()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def serve(*, ip: str = "127.0.0.1", port: int = 8866, idle: int = 600, arguments: Sequence[str] = ()) -> int:
    """Serve the pages of all panels until interrupted, and return the exit code of Voila.

    Args:
        ip: the address to listen at; "0.0.0.0" lets other machines in, without a password.
        port: to listen at.
        idle: seconds after which a kernel ends whose page is closed or whose browser is gone.
        arguments: more of Voila's own.

    Raises:
        ValueError: seconds or a port that are no positive whole numbers.
    """
    require_count("port", port)
    require_count("idle", idle)
    started = time.perf_counter()
    print("Solving the problems of the panels ...", flush=True)
    _warm()
    with tempfile.TemporaryDirectory() as folder:
        address = Path(folder, "kernels.socket")
        environment = write_pages(Path(folder), address)
        options = [
            f"--Voila.ip={ip}", f"--port={port}", "--no-browser", f"--template={TEMPLATE}",
            "--VoilaConfiguration.classic_tree=True", f"--MappingKernelManager.cull_idle_timeout={idle}",
            f"--MappingKernelManager.cull_interval={max(1, min(60, idle // 2))}",
            "--VoilaExecutor.iopub_timeout=60", "--VoilaExecutor.startup_timeout=120",  # a busy machine loses no output
        ]  # fmt: skip
        with KernelForks(str(address)) as forks:
            command = [sys.executable, "-m", "voila", str(Path(folder, "pages")), *options, *arguments]
            voila = subprocess.Popen(command, env=environment, cwd=Path(folder, "pages"))
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            try:
                while voila.poll() is None and not _listens(port):
                    forks.handle_request()
                if voila.poll() is None:
                    print(f"Ready in {time.perf_counter() - started:.0f} s: http://{ip}:{port}", flush=True)
                while voila.poll() is None:
                    forks.handle_request()
            finally:
                voila.terminate()
                voila.wait(30)
        return voila.returncode
