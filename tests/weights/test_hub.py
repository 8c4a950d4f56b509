"""A detector of the Hub is fetched by its name, once; another model, or no network, ends in one line.

A server on this machine answers as the Hub does, as far as huggingface_hub asks.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch
from safetensors.torch import save

from scratch.config import PRESETS, ModelConfig
from scratch.detector import load, published_name
from scratch.model.build import build_detr
from scratch.weights.hub import fetch_from_hub
from scratch.weights.huggingface import their_config, their_processor, to_hugging_face
from scratch.weights.reading import find_weights, read_weights
from tests.local_server import Server, serving

SMALL = ModelConfig(backbone="resnet_tiny", hidden_dim=32, nheads=4, dim_feedforward=48, enc_layers=1, dec_layers=1,
                    num_queries=7, num_classes=2)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NOT_THERE = {"X-Error-Code": "EntryNotFound"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """An empty Hub, and an empty cache. Skips where huggingface_hub is not installed."""
    constants = pytest.importorskip("huggingface_hub.constants",
                                    reason="huggingface_hub is not installed: pip install huggingface_hub")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(monkeypatch) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        server.headers["404"] = NOT_THERE
        yield server


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return build_detr(SMALL).eval()


def publish(server: Server, model: Any, name: str = "owner/cells", revision: str = "main", ending: str = "safetensors",
            **changes: Any) -> None:
    config = replace(PRESETS["detr_r50"], model=SMALL, data=replace(PRESETS["detr_r50"].data, short_side=320))
    files = {"config.json": json.dumps({**their_config(config, ("red", "white")), **changes}).encode(),
             "preprocessor_config.json": json.dumps(their_processor(config)).encode(),
             "model.safetensors": save(to_hugging_face(model.state_dict()), {"format": "pt"})}
    if ending == "bin":
        path = Path(server.folder, "weights.bin")
        torch.save(to_hugging_face(model.state_dict()), path)
        files["pytorch_model.bin"] = path.read_bytes()
        del files["model.safetensors"]
    for file, content in files.items():
        path = f"/{name}/resolve/{revision}/{file}"
        server.files[path] = content
        server.headers[path] = {"X-Repo-Commit": COMMIT}


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_name_is_a_detector_and_is_fetched_once(hub, model, tmp_path, ending):
    hub.folder = tmp_path
    publish(hub, model, ending=ending)
    for _ in range(2):
        detector = load("hf:owner/cells", "cpu")
        assert detector.classes.names == ("red", "white") and detector.config.data.short_side == 320
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in detector.model.state_dict().items())
    weights = [path for path, _ in hub.asked if path.endswith(("model.safetensors", ".bin"))]
    sent = hub.sent
    assert find_weights("hf:owner/cells").is_relative_to(tmp_path / "cache")
    assert hub.sent == sent and weights  # what is there is asked for, and not sent again


def test_a_revision_follows_after_an_at_sign(hub, model):
    publish(hub, model, revision="no_timm")
    assert read_weights(find_weights("hf:owner/cells@no_timm")).kind == "Hugging Face DETR"


def test_another_model_is_refused_before_its_weights_come(hub, model):
    publish(hub, model, model_type="yolos")
    with pytest.raises(ValueError, match="hf:owner/cells is a yolos model, which is another network; wanted a DETR"):
        fetch_from_hub("hf:owner/cells")
    assert not any(path.endswith("safetensors") for path, _ in hub.asked)


def test_a_repository_without_a_configuration_or_weights_is_refused(hub, model):
    with pytest.raises(ValueError, match="no model with a config.json"):
        fetch_from_hub("hf:owner/empty")
    publish(hub, model)
    path = "/owner/cells/resolve/main/model.safetensors"
    del hub.files[path]
    hub.headers[path] = NOT_THERE
    with pytest.raises(ValueError, match="has no file of weights: looked for model.safetensors and pytorch_model.bin"):
        fetch_from_hub("hf:owner/cells")


@pytest.mark.parametrize("code, status, words", [
    ("RepoNotFound", 404, "has no such repository, or a private one"), ("RevisionNotFound", 404, "no such revision"),
    ("GatedRepo", 403, "asks for its conditions to be accepted")])
def test_what_the_hub_refuses_is_said_in_a_line(hub, code, status, words):
    path = "/owner/cells/resolve/main/config.json"
    hub.headers[path], hub.statuses[path] = {"X-Error-Code": code}, [status] * 8
    with pytest.raises(OSError, match=f"hf:owner/cells.*{words}") as error:
        fetch_from_hub("hf:owner/cells")
    assert "\n" not in str(error.value)


def test_without_a_network_the_line_says_what_to_do(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between its tries
    with pytest.raises(OSError, match="was not fetched before: is there a network.*into a folder, and name the folder"):
        fetch_from_hub("hf:owner/cells")


def test_without_the_package_the_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="is not installed: pip install huggingface_hub; or download config.json"):
        fetch_from_hub("hf:owner/cells")


@pytest.mark.parametrize("name", ["hf:cells", "hf:", "hf:a/b/c", "hf:/cells", "hf:owner/"])
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(ValueError, match="wanted hf:OWNER/NAME, as in hf:facebook/detr-resnet-50"):
        find_weights(name)


def test_a_repository_that_is_called_as_published_weights_is_not_taken_for_them():
    assert published_name("hf:owner/detr_r50") is None
