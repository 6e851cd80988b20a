"""Build step: the tables of finished studies, which lie in ``data/results``, become part of the built package."""

from pathlib import Path
from shutil import copy2

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithResults(build_py):
    """Copies the csv and json files of ``data/results`` into ``explainlib/studies/results``; not if editable."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "explainlib", "studies", "results")
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(Path(__file__).parent.joinpath("data", "results").iterdir()):
            if path.suffix in (".csv", ".json"):
                copy2(path, target)


setup(cmdclass={"build_py": BuildWithResults})
