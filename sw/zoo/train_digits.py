"""Train the digits network: ``python -m tercel.sw.zoo.train_digits -o digits.safetensors``. The same seed gives the same weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tercel.sw.zoo import build, load_weights
from tercel.sw.zoo.digits_data import SIZE, digits_part

_BATCH = 64
_RATE = 4e-3
_DECAY = 1e-2
_SMOOTHING = 0.1


@dataclass(frozen=True, kw_only=True)
class Score:
    """Correct images of all."""

    correct: int
    total: int

    def __str__(self) -> str:
        return f"{self.correct}/{self.total} = {100 * self.correct / self.total:.2f} %"


def evaluate(model: nn.Module) -> Score:
    """Top-1 of a network of the digits on the test part, in floating point."""
    test = digits_part("test")
    model.eval()
    with torch.no_grad():
        predicted = model(torch.from_numpy(test.normalized())).argmax(1)
    return Score(correct=int((predicted == torch.from_numpy(test.labels)).sum()), total=len(test.labels))


def train(model: nn.Module, *, epochs: int, seed: int, progress: Progress) -> None:
    """Fit ``model`` to the training part, on one thread so that sums have one order."""
    torch.set_num_threads(1)
    data = digits_part("train")
    images, labels = torch.from_numpy(data.normalized()), torch.from_numpy(data.labels)
    random = torch.Generator().manual_seed(seed)
    steps = len(labels) // _BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=epochs * steps)
    task = progress.add_task("train", total=epochs * steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=random)
        for step in range(steps):
            chosen = order[step * _BATCH : (step + 1) * _BATCH]
            loss = functional.cross_entropy(model(distort(images[chosen], random)), labels[chosen], label_smoothing=_SMOOTHING)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            progress.update(task, advance=1, description=f"train, loss {loss.item():.3f}")


def distort(images: Tensor, random: torch.Generator) -> Tensor:
    """Turn, scale, slant and move each image a little."""
    count = len(images)

    def draw(width: float) -> Tensor:
        return (torch.rand(count, generator=random) * 2 - 1) * width

    angle, slant, scale_x, scale_y = draw(0.25), draw(0.25), 1 + draw(0.15), 1 + draw(0.15)
    rows = [
        torch.stack([scale_x * angle.cos(), -scale_y * angle.sin() + slant, draw(3 / SIZE)], dim=1),
        torch.stack([scale_x * angle.sin(), scale_y * angle.cos(), draw(3 / SIZE)], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def main(
    output: Annotated[Path, typer.Option("--output", "-o", help="safetensors file to write")],
    epochs: Annotated[int, typer.Option(min=1, help="passes over the training part")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="of the initial weights, the order and the distortions")] = 0,
) -> None:
    """Train, write the weights, read them back and print the accuracy on the test part."""
    torch.manual_seed(seed)
    model = build("digits")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        train(model, epochs=epochs, seed=seed, progress=progress)
    save_file({name: value.contiguous() for name, value in model.state_dict().items() if value.is_floating_point()}, output)
    written = build("digits")
    load_weights(written, output)
    parameters = sum(parameter.numel() for parameter in written.parameters())
    typer.echo(f"{output}: {parameters} parameters, {output.stat().st_size} bytes, test accuracy {evaluate(written)}")


if __name__ == "__main__":
    typer.run(main)
