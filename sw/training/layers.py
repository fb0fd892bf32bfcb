"""The layers of a prepared network and their weight quantizers."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tercel.sw.training.weight_quantizer import WeightQuantizer

_SUFFIX = "_quantizer"


def quantized_layers(prepared: nn.Module) -> Iterator[tuple[str, WeightQuantizer, Tensor]]:
    """Path, quantizer and weights of each layer, in order."""
    for path, module in prepared.named_modules():
        if isinstance(module, WeightQuantizer):
            owner, _, name = path.removesuffix(_SUFFIX).rpartition(".")
            yield owner, module, getattr(prepared.get_submodule(owner), name)


def sum_penalties(prepared: nn.Module) -> Tensor:
    """The sum of what the layers add to the loss, a scalar on the network's device."""
    found = [penalty for _, quantizer, _ in quantized_layers(prepared) if (penalty := quantizer.penalty()) is not None]
    device = next((parameter.device for parameter in prepared.parameters()), torch.device("cpu"))
    return torch.stack(found).sum() if found else torch.zeros((), device=device)
