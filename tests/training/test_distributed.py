"""distributed: two gloo processes learn what one process learns from their joint batch.

Under pytest this file starts itself once with torchrun (see `__main__` below); each rank writes down what it saw, and
the tests compare that with one process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scratch.training.distributed import Distributed
from scratch.training.optimizer import AdamW, clip_grad_norm_

STEPS, RANKS, MICRO, IMAGES = 3, 2, 2, 5  # each step: 2 ranks × 2 forward passes × 5 images
REPOSITORY = Path(__file__).resolve().parents[2]


class _Net(nn.Module):
    """Two layers and a running mean, in plain tensor arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = nn.Parameter(torch.randn(7, 11, generator=generator, dtype=torch.float64))
        self.second = nn.Parameter(torch.randn(11, generator=generator, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=False)
        self.register_buffer("running_mean", torch.zeros(7, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.running_mean.lerp_(x.mean(0), 0.1)
        return (x @ self.first).tanh() @ self.second * self.frozen


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(STEPS, RANKS, MICRO, IMAGES, 7, generator=generator, dtype=torch.float64)
    return x, x.sum(-1).sin()


def _train(distributed: Distributed, x: Tensor, y: Tensor) -> dict:
    """Three AdamW steps over x (step, forward pass, image, 7), accumulating over the forward passes."""
    model = distributed.wrap(_Net())
    optimizer = AdamW(model.parameters(), lr=0.05)
    losses, own_gradients, gradients, buffers = [], [], [], []
    for batches, answers in zip(x, y):
        for i in range(len(batches) - 1):
            with distributed.no_sync(model):
                ((model(batches[i]) - answers[i]) ** 2).mean().div(len(batches)).backward()
        own_gradients.append(distributed.unwrap(model).first.grad.clone())
        last = ((model(batches[-1]) - answers[-1]) ** 2).mean()
        last.div(len(batches)).backward()
        norm = clip_grad_norm_(model.parameters(), 0.1)
        losses.append(distributed.mean({"norm": norm, "last": last}))
        gradients.append(distributed.unwrap(model).first.grad.clone())
        optimizer.step()
        optimizer.zero_grad()
        buffers.append(distributed.unwrap(model).running_mean.clone())
    bare = distributed.unwrap(model)
    distributed.share_buffers(bare)
    return {"names": list(bare.state_dict()), "losses": losses, "own_gradients": own_gradients, "gradients": gradients,
            "buffers": buffers, "shared_buffer": bare.running_mean,
            "first": bare.first.data, "second": bare.second.data}


def _rank(out: Path) -> None:
    """What each process of the two does."""
    distributed = Distributed.from_environment("cpu")
    rank = distributed.rank
    x, y = _data()
    result = _train(distributed, x[:, rank], y[:, rank])
    result["mean"] = distributed.mean({"a": torch.tensor(float(rank)), "b": torch.tensor(4 * rank)})
    result["gathered"] = distributed.gather([f"{rank}a", f"{rank}b"][:rank + 1])
    result["place"] = (distributed.rank, distributed.world_size, distributed.is_main, str(distributed.device))
    torch.save(result, out / f"early{rank}.pt")
    distributed.barrier()
    result["others_were_ready_after_the_barrier"] = all((out / f"early{r}.pt").exists() for r in range(RANKS))
    torch.save(result, out / f"rank{rank}.pt")
    distributed.close()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    out = tmp_path_factory.mktemp("ranks")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, __file__, out], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.fixture(scope="module")
def alone() -> dict:
    """One process, and the ranks' images of each forward pass in one batch."""
    x, y = _data()
    x, y = (t.transpose(1, 2).flatten(2, 3) for t in (x, y))  # (step, forward pass, rank·image, …)
    return _train(_single(), x, y)


def _single() -> Distributed:
    return Distributed(rank=0, world_size=1, device=torch.device("cpu"))


@pytest.mark.parametrize("what", ["gradients", "first", "second"])
def test_two_ranks_have_the_gradients_and_weights_of_one_process_with_the_joint_batch(ranks, alone, what):
    for rank in ranks:
        torch.testing.assert_close(rank[what], alone[what], rtol=1e-10, atol=1e-10)


def test_the_mean_of_the_ranks_losses_is_the_loss_of_the_joint_batch(ranks, alone):
    for rank in ranks:
        for ours, one in zip(rank["losses"], alone["losses"]):
            assert ours == pytest.approx(one, rel=1e-10)


def test_weights_are_the_same_on_both_ranks_bit_for_bit(ranks):
    assert torch.equal(ranks[0]["first"], ranks[1]["first"]) and torch.equal(ranks[0]["second"], ranks[1]["second"])


def test_a_mean_is_a_float_for_every_name(ranks):
    assert [rank["mean"] for rank in ranks] == [{"a": 0.5, "b": 2.0}] * 2


def test_lists_of_different_lengths_are_gathered_in_the_order_of_the_ranks(ranks):
    assert [rank["gathered"] for rank in ranks] == [["0a", "1a", "1b"]] * 2


def test_each_rank_knows_its_place(ranks):
    assert [rank["place"] for rank in ranks] == [(0, 2, True, "cpu"), (1, 2, False, "cpu")]


def test_a_barrier_waits_for_everyone(ranks):
    assert all(rank["others_were_ready_after_the_barrier"] for rank in ranks)


def test_gradients_stay_with_their_rank_until_the_last_backward_pass_of_a_step(ranks):
    for first, second in zip(ranks[0]["own_gradients"], ranks[1]["own_gradients"]):
        assert not torch.allclose(first, second)


def test_a_step_starts_on_every_rank_from_the_running_statistics_of_rank_zero(ranks):
    x, _ = _data()
    wanted = ranks[0]["buffers"][1]
    for batch in x[2, 1]:  # the third step's images of rank 1
        wanted = wanted.lerp(batch.mean(0), 0.1)
    torch.testing.assert_close(ranks[1]["buffers"][2], wanted, rtol=1e-12, atol=1e-12)


def test_running_statistics_are_rank_zeros_once_they_are_shared(ranks):
    assert not torch.equal(ranks[0]["buffers"][-1], ranks[1]["buffers"][-1])
    assert all(torch.equal(rank["shared_buffer"], ranks[0]["buffers"][-1]) for rank in ranks)


def test_an_unwrapped_model_has_the_names_of_one_that_never_was_wrapped(ranks):
    assert ranks[0]["names"] == list(_Net().state_dict())


# -- one process ----------------------------------------------------------------------------------------------------


@pytest.fixture
def no_torchrun(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_torchrun_there_is_one_rank_and_it_is_the_main_one(no_torchrun):
    distributed = Distributed.from_environment("cpu")
    assert distributed == _single() and distributed.is_main


def test_under_torchrun_with_one_process_there_is_one_rank_as_well(no_torchrun):
    for name in ("RANK", "LOCAL_RANK"):
        no_torchrun.setenv(name, "0")
    no_torchrun.setenv("WORLD_SIZE", "1")
    assert Distributed.from_environment("cpu") == _single()


def test_alone_every_method_does_nothing():
    distributed, model = _single(), _Net()
    assert distributed.wrap(model) is model and distributed.unwrap(model) is model
    assert distributed.mean({"a": torch.tensor(3), "b": torch.tensor(0.5)}) == {"a": 3.0, "b": 0.5}
    assert distributed.gather([1, 2]) == [1, 2]
    distributed.barrier()
    distributed.share_buffers(model)
    with distributed.no_sync(model):
        pass
    distributed.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused(no_torchrun):
    with pytest.raises(ValueError, match="sees no GPU; use --device cpu"):
        Distributed.from_environment("cuda")


def test_an_incomplete_environment_is_refused_and_what_is_missing_is_named(no_torchrun):
    no_torchrun.setenv("WORLD_SIZE", "2")
    no_torchrun.setenv("RANK", "0")
    with pytest.raises(ValueError, match="not LOCAL_RANK, MASTER_ADDR, MASTER_PORT; start the ranks with torchrun"):
        Distributed.from_environment("cpu")


@pytest.mark.parametrize("device, local_rank", [("cuda:0", 0), ("cuda", 1)])
def test_ranks_that_would_share_a_gpu_are_refused(no_torchrun, device, local_rank):
    no_torchrun.setattr(torch.cuda, "is_available", lambda: True)
    no_torchrun.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"WORLD_SIZE": 2, "RANK": local_rank, "LOCAL_RANK": local_rank, "MASTER_ADDR": "localhost",
                        "MASTER_PORT": 1}.items():
        no_torchrun.setenv(name, str(value))
    with pytest.raises(ValueError, match="at most one process for each GPU"):
        Distributed.from_environment(device)


if __name__ == "__main__":
    _rank(Path(sys.argv[1]))
