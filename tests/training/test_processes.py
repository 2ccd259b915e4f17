"""Two processes are one: slices, gathered rows and batch statistics, and their gradients."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import clapkit
from clapkit.errors import ConfigError
from clapkit.training.processes import (
    GlobalBatchNorm2d,
    gather_with_gradient,
    is_shared,
    own_slice,
    with_global_statistics,
)

N_PROCESSES = 2


class Net(nn.Module):
    """Two normalised convolutions and a scale that only the loss uses, as CLAP's temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
        )
        self.scale = nn.Parameter(torch.tensor(1.3))

    def forward(self, pictures: Tensor) -> Tensor:
        """``(batch, 1, 8, 9)`` → ``(batch, 6)``."""
        return self.layers(pictures).mean(dim=(2, 3))


def make_net() -> Net:
    torch.manual_seed(0)
    net = Net()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return net.double()


def make_batch() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    batch = torch.randn(8, 1, 8, 9, generator=generator, dtype=torch.float64)
    return batch * torch.arange(1, 9)[:, None, None, None] + 2  # the halves have different means and spreads


def loss_of(rows: Tensor, scale: Tensor) -> Tensor:
    """Every row meets every other one."""
    return -torch.log_softmax(scale * rows @ rows.T, dim=1).roll(1, 0).diagonal().mean() + rows.pow(3).mean()


def train_step(net: nn.Module, pictures: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """All rows and the loss of two steps with the same batch, whose gradients add up."""
    for _ in range(2):
        rows = gather_with_gradient(net(pictures))
        loss = loss_of(rows, scale)
        loss.backward()
    return rows.detach(), loss.detach()


def _one_of_two(folder: str, rank: int) -> None:
    """What each process does; saves what it ended with."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=N_PROCESSES)
    net = with_global_statistics(make_net()).double()
    wrapped = nn.parallel.DistributedDataParallel(net)
    own = own_slice(8, SimpleNamespace(num_processes=N_PROCESSES, process_index=rank))
    rows, loss = train_step(wrapped, make_batch()[own], net.scale)
    net.eval()
    result = {"rows": rows, "loss": loss, "evaluated": net(make_batch()).detach(), "shared": torch.tensor(is_shared())}
    result |= {f"gradient {name}": each.grad for name, each in net.named_parameters()}
    result |= {f"buffer {name}": each for name, each in net.named_buffers()}
    torch.save(result, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("processes")
    path = os.pathsep.join([str(Path(clapkit.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, __file__, str(folder)]
    started = [
        subprocess.Popen([*words, str(rank)], env=os.environ | {"PYTHONPATH": path}) for rank in range(N_PROCESSES)
    ]
    assert [process.wait(timeout=100) for process in started] == [0] * N_PROCESSES
    return [torch.load(folder / f"{rank}.pt") for rank in range(N_PROCESSES)]


@pytest.fixture(scope="module")
def of_one() -> dict[str, Tensor]:
    net = make_net()
    rows, loss = train_step(net, make_batch(), net.scale)
    net.eval()
    result = {"rows": rows, "loss": loss, "evaluated": net(make_batch()).detach()}
    result |= {f"gradient {name}": each.grad for name, each in net.named_parameters()}
    return result | {f"buffer {name}": each for name, each in net.named_buffers()}


@pytest.mark.parametrize("kind", ["rows", "loss", "evaluated", "gradient", "buffer"])
def test_two_processes_give_what_one_gives_with_the_joined_batch(
    of_two: list[dict[str, Tensor]], of_one: dict[str, Tensor], kind: str
) -> None:
    names = [name for name in of_one if name.startswith(kind)]
    assert names
    for rank, result in enumerate(of_two):
        assert result["shared"]
        for name in names:
            torch.testing.assert_close(result[name], of_one[name], atol=1e-9, rtol=1e-7, msg=f"{name} in {rank}")


def test_a_plain_batch_norm_would_not_do() -> None:
    """Statistics of a half differ from those of the whole, else the test above shows nothing."""
    net = make_net()
    halves = torch.cat([copy.deepcopy(net)(part) for part in make_batch().chunk(2)])
    assert (halves - net(make_batch())).abs().max() > 0.01


def test_replacing_keeps_names_weights_and_settings() -> None:
    net = make_net()
    net.layers[1].eps, net.layers[1].momentum = 0.01, 0.3
    before = copy.deepcopy(net.state_dict())
    replaced = with_global_statistics(net)
    kinds = [type(module) for module in replaced.modules() if isinstance(module, nn.BatchNorm2d)]
    assert kinds == [GlobalBatchNorm2d] * 2
    assert (replaced.layers[1].eps, replaced.layers[1].momentum) == (0.01, 0.3)
    after = replaced.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value.to(after[name].dtype))


def test_alone_nothing_is_gathered() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_with_gradient(rows) is rows
    assert not is_shared()


def test_slices_cover_the_batch_once() -> None:
    places = [own_slice(12, SimpleNamespace(num_processes=3, process_index=rank)) for rank in range(3)]
    assert [list(range(12))[place] for place in places] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_size=7 cannot be shared by 2 processes"):
        own_slice(7, SimpleNamespace(num_processes=2, process_index=0))


if __name__ == "__main__":
    _one_of_two(sys.argv[1], int(sys.argv[2]))
