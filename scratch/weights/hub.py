"""hub: how is a detector fetched from the Hugging Face Hub by its name?

    hf:OWNER/NAME ─▶ config.json ─▶ a DETR? ─▶ preprocessor_config.json, model.safetensors (else pytorch_model.bin)
    hf:OWNER/NAME@REVISION           no: refused before its weights come

The package huggingface_hub does it, where it is installed: it knows how to log in, resumes what was cut, and keeps what
was fetched in its own cache (HF_HOME), which `transformers` shares. HF_ENDPOINT names another server. Proven against a
local one in tests/weights/test_hub.py.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional, Union

from scratch.weights.huggingface import CONFIG, FILES, MODEL_TYPE, PROCESSOR

BEFORE = "hf:"  # what stands before a name of the Hub


def is_hub_name(name: Union[str, Path]) -> bool:
    return str(name).startswith(BEFORE)


def fetch_from_hub(name: str) -> Path:
    """The file of weights behind hf:OWNER/NAME or hf:OWNER/NAME@REVISION, with its config.json beside it.

    Raises ValueError for another form of name, where huggingface_hub is not installed, and for another model; OSError
    where the Hub, the network or the disk refuses.
    """
    name = name.replace(os.sep, "/")  # it may have been a Path
    repository, _, revision = name[len(BEFORE):].partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(f"got {name!r}, wanted {BEFORE}OWNER/NAME, as in {BEFORE}facebook/detr-resnet-50 (a revision "
                         "follows after @)")
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise ValueError(f"got {name!r}, and the package that fetches from the Hub is not installed: pip install "
                         f"huggingface_hub; or download {CONFIG} and {FILES[0]} into a folder, and name the folder"
                         ) from error

    def fetched(file: str) -> Path:
        return Path(hf_hub_download(repository, file, revision=revision or None,
                                    endpoint=os.environ.get("HF_ENDPOINT") or None))

    with _in_a_line(name, errors):
        kind = _model_type(_optional(fetched, CONFIG, errors))
        if kind != MODEL_TYPE:
            got = f"a {kind} model" if kind else f"no model with a {CONFIG}"
            raise ValueError(f"{name} is {got}, which is another network; wanted a DETR ({MODEL_TYPE})")
        _optional(fetched, PROCESSOR, errors)
        for file in FILES:
            if path := _optional(fetched, file, errors):
                return path
    raise ValueError(f"{name} has no file of weights: looked for {' and '.join(FILES)}")


def _optional(fetched: Any, file: str, errors: Any) -> Optional[Path]:
    """The file, or None where the repository has none of that name."""
    try:
        return fetched(file)
    except errors.LocalEntryNotFoundError:  # of the same family, and means that there was no network
        raise
    except errors.EntryNotFoundError:
        return None


def _model_type(path: Optional[Path]) -> Optional[str]:
    try:
        return str(json.loads(path.read_bytes())["model_type"])[:60] if path else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@contextmanager
def _in_a_line(name: str, errors: Any) -> Iterator[None]:
    """Turn the errors of huggingface_hub into one line that says what to do."""
    try:
        yield
    except errors.GatedRepoError as error:
        raise OSError(f"{name} asks for its conditions to be accepted on its page, and for a login: hf auth login"
                      ) from error
    except errors.RepositoryNotFoundError as error:
        raise OSError(f"{name}: the Hub has no such repository, or a private one (hf auth login)") from error
    except errors.RevisionNotFoundError as error:
        raise OSError(f"{name}: the repository has no such revision") from error
    except errors.LocalEntryNotFoundError as error:
        raise OSError(f"{name} could not be fetched, and was not fetched before: is there a network? (HF_ENDPOINT "
                      "names another server, HF_HUB_OFFLINE=1 forbids all of them.) Or download "
                      f"{CONFIG} and {FILES[0]} elsewhere into a folder, and name the folder") from error
    except errors.HFValidationError as error:
        raise ValueError(f"got {name!r}, which is no name of the Hub: {str(error).splitlines()[0][:200]}") from error
    except errors.HfHubHTTPError as error:
        raise OSError(f"{name} could not be fetched: {str(error).splitlines()[0][:300]}") from error
