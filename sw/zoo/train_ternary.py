"""Train the digits network further with ternary weights: ``python -m tercel.sw.zoo.train_ternary -o digits_ternary.safetensors``.

Batch norms are folded first. In the forward pass the pointwise layers have the weights that the ``ternary`` scheme makes of them, and the
gradient passes straight through to the real ones (the straight-through estimator). What is written are the ternary weights, as real
numbers on their grid: quantizing them again with that scheme changes none. Depthwise layers, the first and the last layer stay real.
"""

import copy
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval, parametrize

from tercel.sw.quantize.schemes import SCHEMES
from tercel.sw.zoo import build, load_weights, shipped_weights
from tercel.sw.zoo.digits_data import digits_part
from tercel.sw.zoo.train_digits import distort, evaluate

_BATCH = 64
_RATE = 2e-3
_SMOOTHING = 0.1
_BITS = 2


class Ternary(nn.Module):
    """Weights on the ternary scheme's grid; the gradient is that of the real weights."""

    def forward(self, weight: Tensor) -> Tensor:
        """Weights ``[outputs, inputs, 1, 1]``, rounded."""
        rows = weight.detach().flatten(1)
        scales = SCHEMES["ternary"].scales(rows.numpy().astype(np.float64), bits=_BITS, least=np.zeros(len(rows)))
        scale = torch.from_numpy(scales)[:, None]
        rounded = (torch.clamp(torch.round(rows / scale), -1, 1) * scale).reshape(weight.shape)
        return rounded + (weight - weight.detach())


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy in which every batch norm has gone into the convolution before it."""
    folded = copy.deepcopy(model).eval()
    previous: tuple[str, nn.Conv2d] | None = None
    for name, module in list(folded.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and previous is not None:
            _replace(folded, previous[0], fuse_conv_bn_eval(previous[1], module))
            _replace(folded, name, nn.Identity())
        previous = (name, module) if isinstance(module, nn.Conv2d) else None if not list(module.children()) else previous
    return folded


def pointwise_layers(model: nn.Module) -> list[nn.Conv2d]:
    """The convolutions that become ternary."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    return [layer for layer in layers[1:] if layer.groups == 1]


def train(model: nn.Module, *, epochs: int, seed: int, progress: Progress) -> None:
    """Fit a network with folded batch norms to the training part, on one thread so that sums have one order."""
    torch.set_num_threads(1)
    data = digits_part("train")
    images, labels = torch.from_numpy(data.normalized()), torch.from_numpy(data.labels)
    random = torch.Generator().manual_seed(seed)
    steps = len(labels) // _BATCH
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=epochs * steps)
    task = progress.add_task("train", total=epochs * steps)
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=random)
        for step in range(steps):
            chosen = order[step * _BATCH : (step + 1) * _BATCH]
            loss = functional.cross_entropy(model(distort(images[chosen], random)), labels[chosen], label_smoothing=_SMOOTHING)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.update(task, advance=1, description=f"train, loss {loss.item():.3f}")


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="safetensors file to write")],
    epochs: Annotated[int, typer.Option(min=1, help="passes over the training part")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="of the order and the distortions")] = 0,
) -> None:
    """Train, write the weights, read them back and print the accuracy on the test part."""
    trained = shipped_weights("digits")
    assert trained is not None
    model: nn.Module = build("digits")
    load_weights(model, trained)
    model = fold_norms(model)
    for layer in pointwise_layers(model):
        parametrize.register_parametrization(layer, "weight", Ternary())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        train(model, epochs=epochs, seed=seed, progress=progress)
    for layer in pointwise_layers(model):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    save_file({name: value.detach().contiguous() for name, value in model.state_dict().items()}, output)
    written = build("digits")
    load_weights(written, output)
    typer.echo(f"{output}: {output.stat().st_size} bytes, test accuracy {evaluate(written)}")


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    model.get_submodule(owner).register_module(attribute, module)


if __name__ == "__main__":
    typer.run(main)
