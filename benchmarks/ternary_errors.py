"""How much of the weights the ternary schemes keep: ``python -m benchmarks.ternary_errors --data DIR`` prints a Markdown table.

Weights with their batch norms folded, no network is run: the signal to noise of each layer's weights, the mean over the layers.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.accuracy_table import markdown_line
from benchmarks.checkpoints import CHECKPOINTS
from benchmarks.errors import command
from tercel.sim.parse import UsageError
from tercel.sw.quantize import SCHEMES, Scheme

if TYPE_CHECKING:
    from torch import nn

_DEFAULT_NETWORKS = ("mobilenet_v1_0.25", "mobilenet_v2")
_BITS = 2


def layer_weights(model: "nn.Module") -> list[npt.NDArray[np.float64]]:
    """Weights ``[outputs, weights of an output]`` of each convolution and linear layer, batch norms folded."""
    from torch import nn

    from tercel.sw.zoo.train_ternary import fold_norms

    layers = [module for module in fold_norms(model).modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return [layer.weight.detach().double().flatten(1).numpy() for layer in layers]


def weight_decibels(scheme: Scheme, layers: list[npt.NDArray[np.float64]]) -> float:
    """The mean over the layers of their weights' energy over that of their errors, in dB."""
    found = []
    for weights in layers:
        scales = scheme.scales(weights, bits=_BITS, least=np.zeros(len(weights)))
        error = np.square(scheme.rounded(weights, scales, bits=_BITS) - weights).sum()
        found.append(10 * np.log10(np.square(weights).sum() / max(error, 1e-30)))
    return float(np.mean(found))


def main(
    *,
    data: Annotated[Path | None, typer.Option(envvar="TERCEL_DATA", help="folder with weights/")] = None,
    networks: Annotated[str, typer.Option(help=f"any of {', '.join(CHECKPOINTS)}")] = ",".join(_DEFAULT_NETWORKS),
) -> None:
    """Measure the errors of ternary weights. Example: python -m benchmarks.ternary_errors --networks digits."""
    names = networks.split(",")
    for name in names:
        if name not in CHECKPOINTS:
            raise UsageError(f"networks must be among {', '.join(CHECKPOINTS)}, not {name!r} (separate them with commas)")
    layers = [layer_weights(CHECKPOINTS[name].build(data)) for name in names]
    typer.echo(markdown_line(["scheme", *(f"{name}, dB" for name in names)]))
    typer.echo(markdown_line(["---"] * (1 + len(names))))
    for scheme in SCHEMES.values():
        if scheme.bits == _BITS:
            typer.echo(markdown_line([scheme.name, *(f"{weight_decibels(scheme, weights):.2f}" for weights in layers)]))


if __name__ == "__main__":
    raise SystemExit(command(main))
