"""build: the whole site, from the files of the checkout into a folder. A warning of Sphinx is an error."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from docs.site.drawings import DRAWINGS
from docs.site.extension import project
from docs.site.note_page import drawn
from docs.site.play import WIDGETS
from docs.site.stage import copy, lay_out

HERE = Path(__file__).resolve().parent


def build(out: Path) -> None:
    """Build the site into `out`. What an earlier build left there is removed; any other folder raises ValueError.

    Raises ValueError, too, if Sphinx warns, for example of a link to a heading that is not there.
    """
    if out.exists() and any(out.iterdir()) and not (out / ".buildinfo").exists():
        raise ValueError(f"{out} holds files that no build of the site wrote; name an empty or another folder")
    if out.exists():
        shutil.rmtree(out)
    it = project()
    for note in DRAWINGS:
        drawn(note)
    with tempfile.TemporaryDirectory() as temporary:
        sources, doctrees = Path(temporary) / "sources", Path(temporary) / "doctrees"
        files = lay_out(it, sources)
        with patch_docutils(str(HERE)), docutils_namespace():
            app = Sphinx(sources, HERE, out, doctrees, "html", status=None,
                         parallel=min(2, os.cpu_count() or 1))
            app.build(force_all=True)
        if app._warncount or app.statuscode:
            raise ValueError(f"the site has {app._warncount} problems (above)")
        for path in files:
            copy(it.root / path, out / path)
        for widget in WIDGETS:
            copy(widget.script_file, out / "play" / widget.script_file.name)
    (out / ".nojekyll").touch()  # GitHub's pages leave out folders that begin with _ otherwise
