"""A class arrives at the pages of the panels: ``python -m benchmarks.visitors``.

Starts ``python -m explainlib panels``, lets one visitor in, then ``--visitors`` more, evenly over ``--seconds``. One is
up when the page has come and the widgets of its panel have been sent over its websocket, as a browser asks for them.
What a browser needs to draw them comes on top; ``--browser`` times one. Memory is proportional (PSS: a page that n
processes share counts 1/n in each), summed over the server, its kernels and what starts them.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from statistics import median
from urllib.request import urlopen

import psutil
import websocket

from explainlib.doctor import browser_path
from explainlib.serving import PAGES

FIRST, LAST, MEMORY, AIM = 5.0, 90.0, 12.0, 8.0  # seconds, seconds, GB, GB
OPEN: list[websocket.WebSocket] = []  # the visitors' connections


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served() -> Iterator[tuple[str, psutil.Process, float]]:
    """Yield the address of the pages, the serving process, and the seconds until the pages answered."""
    port, started = free_port(), time.perf_counter()
    command = [sys.executable, "-m", "explainlib", "panels", "--port", str(port), "--", "--Voila.log_level=ERROR"]
    process = psutil.Popen(command)
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(address):
            if process.poll() is not None or time.perf_counter() - started > 300:
                raise SystemExit("the pages did not come up.")
            time.sleep(0.2)
        yield address, process, time.perf_counter() - started
    finally:
        if process.is_running():
            process.terminate()
            process.wait(30)


def _answers(address: str) -> bool:
    try:
        return urlopen(address, timeout=5).status == 200
    except OSError:
        return False


def widgets_sent(address: str, name: str) -> int:
    """Return how many widgets a page has, after fetching it and asking for their state as a browser does."""
    page = urlopen(f"{address}/voila/render/{name}.ipynb", timeout=LAST).read().decode()
    kernel = re.search(r'"kernelId": "([0-9a-f-]+)"', page).group(1)
    if "application/vnd.jupyter.widget-view+json" not in page:
        raise RuntimeError(f"the page {name} came without its panel.")
    session, comm = uuid.uuid4().hex, uuid.uuid4().hex
    line = websocket.create_connection(
        f"{address.replace('http', 'ws')}/api/kernels/{kernel}/channels?session_id={session}", timeout=LAST
    )

    def send(kind: str, content: dict, **metadata: str) -> None:
        header = {"msg_id": uuid.uuid4().hex, "username": "", "session": session, "msg_type": kind, "version": "5.3"}
        message = {"header": header, "parent_header": {}, "metadata": metadata, "content": content}
        line.send(json.dumps({**message, "channel": "shell", "buffers": []}))

    send("comm_open", {"comm_id": comm, "target_name": "jupyter.widget.control", "data": {}}, version="1.0.0")
    send("comm_msg", {"comm_id": comm, "data": {"method": "request_states"}})
    while True:
        got = line.recv()
        text = got if isinstance(got, str) else got.decode("utf-8", "replace")
        if '"update_states"' in text:
            OPEN.append(line)  # the visitor stays
            return text.count('"_model_module"')


def proportional(process: psutil.Process) -> tuple[float, int]:
    """Return the proportional memory in GB of a process and all below it, and how many processes they are."""
    everybody, total = [process, *process.children(recursive=True)], 0.0
    for one in everybody:
        try:
            total += one.memory_full_info().pss / 1e9
        except psutil.NoSuchProcess:
            continue
    return total, len(everybody)


def arrivals(address: str, visitors: int, seconds: float) -> list[float]:
    """Return the seconds from each arrival until the visitor was up; in the order of arrival."""
    waited: dict[int, float] = {}

    def visit(i: int, name: str) -> None:
        arrived = time.perf_counter()
        if widgets_sent(address, name):
            waited[i] = time.perf_counter() - arrived

    threads = []
    for i, name in zip(range(visitors), cycle(PAGES)):
        threads.append(threading.Thread(target=visit, args=(i, name), daemon=True))
        threads[-1].start()
        time.sleep(seconds / visitors)
    for thread in threads:
        thread.join(LAST)
    return [waited.get(i, float("inf")) for i in range(visitors)]


def in_a_browser(address: str) -> float:
    """Return the seconds until a real browser shows a panel."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=browser_path(), args=options)
        page, started = browser.new_page(), time.perf_counter()
        page.goto(f"{address}/voila/render/removal.ipynb", timeout=120_000)
        page.locator(".xl-panel .xl-prediction table").wait_for(timeout=120_000)
        spent = time.perf_counter() - started
        browser.close()
    return spent


def main() -> int:
    """Print seconds and memory against their bars; return 1 where one is not kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.visitors", description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=60.0, help="within which they arrive (default: 60)")
    parser.add_argument("--browser", action="store_true", help="time one visitor in a real browser too")
    chosen = parser.parse_args()
    with served() as (address, process, ready):
        empty, _ = proportional(process)
        started = time.perf_counter()
        widgets_sent(address, next(iter(PAGES)))
        first = time.perf_counter() - started
        browser = in_a_browser(address) if chosen.browser else None
        waited = arrivals(address, chosen.visitors, chosen.seconds)
        starts = [i * chosen.seconds / chosen.visitors for i in range(chosen.visitors)]
        last = max(start + seconds for start, seconds in zip(starts, waited, strict=True))
        full, processes = proportional(process)
    busy = psutil.getloadavg()[0]
    print(f"{psutil.cpu_count()} cores, load {busy:.1f}; the server was ready after {ready:.0f} s")
    print(f"one visitor up after {first:.1f} s (bar {FIRST:.0f})")
    if browser is not None:
        print(f"one browser shows the panel after {browser:.1f} s (bar {FIRST:.0f})")
    print(
        f"{chosen.visitors} arrivals in {chosen.seconds:.0f} s: median {median(waited):.1f} s, slowest "
        f"{max(waited):.1f} s, all up {last:.0f} s after the first arrival (bar {LAST:.0f})"
    )
    print(
        f"proportional memory: {empty:.2f} GB without a visitor, {full:.2f} GB with all ({processes} processes; bar "
        f"{MEMORY:.0f}, aim {AIM:.0f})"
    )
    kept = first <= FIRST and (browser or 0) <= FIRST and last <= LAST and full <= MEMORY
    print("every bar is kept" if kept else "NOT every bar is kept")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
