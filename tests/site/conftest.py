"""The site, built once for a run of the tests, also where several processes share the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock

from tests.conftest import REPOSITORY


class Site(NamedTuple):
    """folder: where the pages are. said: all that the command printed."""

    folder: Path
    said: str

    def pages(self) -> list[Path]:
        return sorted(self.folder.rglob("*.html"))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Site:
    """Built by the command that `make site` runs. Skipped where requirements-more.txt is not installed."""
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install -r requirements-more.txt")
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if hasattr(request.config, "workerinput") else shared
    folder, said = shared / "site", shared / "site.txt"
    with FileLock(shared / "site.lock"):
        if not said.exists():
            run = subprocess.run([sys.executable, "-m", "docs.site", "--out", str(folder)], cwd=REPOSITORY,
                                 capture_output=True, text=True)
            said.write_text(f"{run.stdout}{run.stderr}\nexit status {run.returncode}\n", encoding="utf-8")
    return Site(folder, said.read_text(encoding="utf-8"))
