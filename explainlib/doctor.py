"""A report on the installation: what is there, what is missing, and the remedy for each gap.

``report`` only looks: it installs, downloads and changes nothing. Paths are shortened to ``$EXPLAINLIB_DATA`` and
``~``, so that a report can be shown to others.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "matplotlib",
    "seaborn",
    "jaxtyping",
    "ipywidgets",
    "jupyterlab",
    "nbval",
    "voila",
    "learn2learn",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TESTED = ((3, 11), (3, 12), (3, 13))  # versions of Python
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s#;]+)")
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)[^;]*(?:;.*extra == ['\"](\w+)['\"])?")
HOME = Path(__file__).resolve().parent.parent  # the repository, or where pip installs packages
MARKS = {True: "ok ", False: "gap"}
DATA = "data "  # how the subject of a data set begins


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        subject: what was checked.
        text: what was found.
        remedy: what to do; empty if nothing.
    """

    subject: str
    text: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Return whether there is nothing to do."""
        return not self.remedy

    def __str__(self) -> str:
        """Return the line, the remedy below it."""
        line = f"[{MARKS[self.ok]}] {self.subject}: {self.text}"
        return line if self.ok else f"{line}\n      -> {self.remedy}"


def pins(root: Path | None = None) -> dict[str, str]:
    """Return the exact versions this project is tested with, name -> version, names in lower case.

    Args:
        root: the repository; None means the one this package was installed from. Without its files, nothing is pinned.
    """
    folder = HOME if root is None else root
    found: dict[str, str] = {}
    for name, pattern in (("constraints.txt", r"(.*)"), ("Makefile", r"^LEARN2LEARN := (.*)")):
        path = folder / name
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            wanted = re.match(pattern, line)
            pin = PIN.match(wanted.group(1)) if wanted else None
            if pin:
                found[pin.group(1).lower()] = pin.group(2)
    return found


def python_finding() -> Finding:
    """Return which Python and system this is."""
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info[:2] not in TESTED or platform.system() != "Linux":
        versions = " and ".join(f"{major}.{minor}" for major, minor in TESTED)
        return Finding("python", text, f"only Python {versions} on Linux are tested; where results differ, try those")
    return Finding("python", text)


def in_repository(root: Path | None = None) -> bool:
    """Return whether this package lies in its repository, where ``make`` installs what it needs.

    Args:
        root: the folder that holds the package; None means where it was imported from.
    """
    folder = HOME if root is None else root
    return all((folder / name).is_file() for name in ("Makefile", "constraints.txt", "pyproject.toml"))


def install_command(name: str, root: Path | None = None) -> str:
    """Return the command that installs a package this library can use.

    Args:
        name: as its distribution is called.
        root: as in ``in_repository``. Outside the repository there is no Makefile, and pip takes its place.
    """
    if in_repository(root):
        return "make env" if name != "learn2learn" else "rm .venv/.installed && make env"
    if name == "learn2learn":
        from explainlib.datasets.tasks import INSTALL_LEARN2LEARN

        return INSTALL_LEARN2LEARN
    try:
        requirements = metadata.requires("explainlib") or []
    except metadata.PackageNotFoundError:
        requirements = []
    extras = {found.group(1): found.group(2) for found in map(REQUIREMENT.match, reversed(requirements)) if found}
    return f"pip install 'explainlib[{extras[name]}]'" if extras.get(name) else f"pip install {name}"


def package_finding(name: str, pinned: str | None) -> Finding:
    """Return which version of a package is installed, without importing it.

    Args:
        name: as its distribution is called.
        pinned: the tested version, None if it is unknown.
    """
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        without = "; without it there is no to_learn2learn, no from_learn2learn and no notebook 05"
        return Finding(name, "not installed", install_command(name) + without * (name == "learn2learn"))
    if pinned is not None and version.split("+")[0] != pinned:
        return Finding(name, f"{version}, tested with {pinned}", "make env installs the tested version")
    return Finding(name, version + ("" if pinned is None else ", the tested version"))


def device_finding(device: str = "auto") -> Finding:
    """Return the available device.

    Args:
        device: the one asked for, as in ``compute.chosen_device``.
    """
    import torch

    from explainlib.compute import chosen_device

    chosen = chosen_device(device)
    if chosen.type == "cuda":
        used = "used where your tensors are on it, and by studies that can"
        return Finding("device", f"{chosen}, {torch.cuda.get_device_name(chosen)}; {used}")
    if torch.cuda.is_available():
        return Finding("device", f"CPU, as asked for; there is a GPU as well, {torch.cuda.get_device_name(0)}")
    if torch.version.cuda:
        remedy = (
            "nvidia-smi should list a GPU and a recent driver; without a GPU all is well, the library runs on the CPU"
        )
        return Finding("device", f"CPU; torch is built for CUDA {torch.version.cuda} but finds no GPU", remedy)
    return Finding("device", "CPU (torch has no CUDA in it; on a machine with a GPU install a CUDA build of torch)")


def compute_finding() -> Finding:
    """Return the thread and denormal settings."""
    from explainlib import compute

    return Finding("threads", compute.thread_report())


def browser_path() -> str | None:
    """Return the browser that the browser tests drive, None if none is on the PATH."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def browser_finding() -> Finding:
    """Return which browser the browser tests would drive."""
    path = browser_path()
    if path is None:
        return Finding("browser", "no chromium on the PATH; browser tests are skipped", "apt-get install chromium")
    return Finding("browser", f"{Path(path).name}, for the browser tests")


def data_findings() -> list[Finding]:
    """Return one finding for each registered data set."""
    from explainlib import datasets

    entries = {entry.name: entry for entry in [*datasets.pool_catalogue(), *datasets.catalogue()]}  # one line a name
    return [
        Finding(f"{DATA}{name}", entry.found or "not found", "" if entry.found else entry.how)
        for name, entry in entries.items()
    ]


def findings(device: str = "auto") -> list[Finding]:
    """Return all findings of ``doctor``, in the order of the report.

    Args:
        device: the one asked for.
    """
    pinned = pins()
    return [
        python_finding(),
        *(package_finding(name, pinned.get(name)) for name in PACKAGES),
        device_finding(device),
        compute_finding(),
        *([browser_finding()] if in_repository() else []),
        *data_findings(),
    ]


def shorten(text: str) -> str:
    """Return the text with the data folder written as $EXPLAINLIB_DATA and the home folder as ~."""
    root, home = os.environ.get("EXPLAINLIB_DATA", ""), str(Path.home())
    if len(root) > 1:
        text = text.replace(root.rstrip("/"), "$EXPLAINLIB_DATA")
    return re.sub(rf"(?<![\w/]){re.escape(home)}(?=/|\b)", "~", text) if len(home) > 1 else text


def report(device: str = "auto") -> str:
    """Return the whole report: one line a finding, each gap with its remedy, and a closing count.

    Args:
        device: the one asked for, as in ``compute.chosen_device``.
    """
    found = findings(device)
    return shorten("\n".join([*map(str, found), _closing([each for each in found if not each.ok])]))


def _closing(gaps: Sequence[Finding]) -> str:
    """Return the last line: how many gaps there are, and whether a notebook stops at them."""
    if not gaps:
        return "Nothing is missing."
    data = sum(gap.subject.startswith(DATA) for gap in gaps)
    said = f"{len(gaps)} gap{'s' * (len(gaps) > 1)}; each names what to do."
    if data == len(gaps):
        return f"{said} All are data that no notebook needs."
    return f"{said} {data} of them are data that no notebook needs." if data else said
