"""whole_file: how does a process that is killed while it writes leave no half file behind?

    content ─▶ NAME.tmp ─▶ NAME        the last arrow is a renaming, which happens at once or not at all

Until then the former content stands under the name. What a kill leaves of NAME.tmp, the next one
writes over. Proven in tests/analysis/test_whole_file.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Any) -> None:
    """Write a whole file or none."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    os.replace(temporary, path)
