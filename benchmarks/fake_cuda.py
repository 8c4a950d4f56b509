"""fake_cuda: how can the code of a GPU run where there is no GPU, and no CUDA in PyTorch either?

    a fake tensor: shape, dtype, strides, device ── no numbers        an operation on it ──▶ the shape of its result

PyTorch's FakeTensorMode runs a model without memory and without arithmetic. Each tensor says that it is on "cuda", so
the code takes the paths that it takes on a GPU. The forward needs nothing else. Autograd, however, asks the device for
its current stream, and a PyTorch that was built without CUDA has nobody to answer. `GUARD` answers: one device, one
stream, nothing to wait for. The C++ compiler of this machine compiles it, in some seconds.

PyTorch looks for such an answer once, while it is imported. So a program calls `provide()` before that, and should do
nothing else: PyTorch goes on believing that there is a GPU. What runs in `fake_cuda()` cannot read a number of a tensor
(`.item()`, `.tolist()`, `nonzero`): there is none.
Read: provide → fake_cuda
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator
from unittest import mock

GUARD = r"""
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

using c10::Device; using c10::DeviceIndex; using c10::DeviceType; using c10::Stream;

// The engine of autograd asks for devices and streams: there is cuda:0, and its default stream.
struct OneDevice final : c10::impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
  static Device only() { return Device(DeviceType::CUDA, 0); }
  static Stream stream() { return Stream(Stream::DEFAULT, only()); }
  Device getDevice() const override { return only(); }
  Device exchangeDevice(Device) const override { return only(); }
  Stream getStream(Device) const noexcept override { return stream(); }
  Stream getNewStream(Device, int) const override { return stream(); }
  Stream exchangeStream(Stream) const noexcept override { return stream(); }
  void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
static OneDevice guard;
static c10::impl::DeviceGuardImplRegistrar registered(DeviceType::CUDA, &guard);

namespace at {
struct Hooks final : CUDAHooksInterface {
  explicit Hooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
};
using CUDAHooks = Hooks;
REGISTER_CUDA_HOOKS(CUDAHooks)
}
"""

_provided = False


def compiler() -> str | None:
    """The C++ compiler of this machine, or None."""
    return os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def provide() -> None:
    """Let autograd find a "cuda" device; nothing where PyTorch was built with CUDA. Call it before torch is imported.

    Raises RuntimeError where torch is imported already, where there is no C++ compiler, or where it fails.
    """
    global _provided
    home = Path(importlib.util.find_spec("torch").origin).parent
    if _provided or list((home / "lib").glob("*torch_cuda*")):
        _provided = True
        return
    if "torch" in sys.modules:
        raise RuntimeError("got a process that has imported torch, wanted a new one: run python -m "
                           "benchmarks.gpu_estimate")
    if compiler() is None:
        raise RuntimeError("got a PyTorch without CUDA and no C++ compiler, wanted one of the two: install g++ or "
                           "clang++, or name a compiler in CXX")
    for name in ("libc10", "libtorch_cpu"):  # for all to see: what is loaded next needs their symbols
        for file in (home / "lib").glob(f"{name}.*"):
            ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "guard.cpp"), Path(folder, "guard.so")
        source.write_text(GUARD, encoding="utf-8")
        command = [compiler(), "-shared", "-fPIC", "-std=c++20", str(source), "-o", str(library),
                   f"-I{home / 'include'}", f"-I{home / 'include/torch/csrc/api/include'}", f"-L{home / 'lib'}",
                   "-lc10", "-ltorch_cpu"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{compiler()} could not compile the fake device: {done.stderr.strip()[-500:]}")
        ctypes.CDLL(str(library))
    _provided = True


@contextmanager
def fake_cuda() -> Iterator[None]:
    """While it lasts, tensors are made without memory, on a "cuda" device that takes every operation."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    if not _provided:
        raise RuntimeError("got a process without a fake device, wanted provide() before torch is imported")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _believed(), FakeTensorMode(allow_non_fake_inputs=True):
            yield


@contextmanager
def _believed() -> Iterator[None]:
    """What asks for more than a device's type gets the answer of a GPU; a seed is a number, and no fake tensor."""
    import torch

    real_randint, real_to = torch.randint, torch.nn.Module.to

    def randint(*arguments: Any, **options: Any) -> Any:
        return 5 if arguments == (2**62, ()) else real_randint(*arguments, **options)

    def to(module: Any, *arguments: Any, **options: Any) -> Any:
        if "memory_format" not in options:
            return real_to(module, *arguments, **options)
        for child in module.modules():  # Module.to swaps the memory of a parameter, and a fake one has none
            for name, weight in child.named_parameters(recurse=False):
                if weight.dim() == 4:
                    laid = weight.detach().contiguous(memory_format=options["memory_format"])
                    setattr(child, name, torch.nn.Parameter(laid))
        return module

    def attention(q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
                  scale: Any = None, enable_gqa: bool = False) -> Any:
        """The fused kernel that takes a mask and dropout; without CUDA PyTorch would choose separate operations."""
        if torch.is_autocast_enabled("cuda"):
            q, k, v = (x.to(torch.get_autocast_dtype("cuda")) for x in (q, k, v))
        if attn_mask is not None:
            if attn_mask.dtype is torch.bool:
                attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(~attn_mask, -torch.inf)
            attn_mask = attn_mask.to(q.dtype).expand(*q.shape[:-1], k.shape[-2])
        fused = torch.ops.aten._scaled_dot_product_efficient_attention
        return fused(q, k, v, attn_mask, q.requires_grad, dropout_p, is_causal, scale=scale)[0]

    class Generator:
        """A generator of the fake device, of which only the seed is asked for."""

        def __new__(cls, device: Any = None) -> Any:
            return torch._C.Generator("cpu")

    with mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False), \
            mock.patch("torch.cuda.is_bf16_supported", lambda *_, **__: True), \
            mock.patch("torch.randint", randint), mock.patch("torch.Generator", Generator), \
            mock.patch("torch.nn.Module.to", to), \
            mock.patch("torch.nn.functional.scaled_dot_product_attention", attention):
        yield
