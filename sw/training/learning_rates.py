"""What an optimizer of PyTorch takes, with the learning rates that quantizers ask for."""

from typing import Any

from torch import nn

from tercel.sw.training.activation_quantizer import ActivationQuantizer
from tercel.sw.training.weight_quantizer import WeightQuantizer


def make_groups(prepared: nn.Module, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """:func:`tercel.sw.training.parameter_groups` itself, in a module that may import torch."""
    seen: set[nn.Parameter] = set()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in prepared.modules():
        quantizer = module if isinstance(module, WeightQuantizer | ActivationQuantizer) else None
        for name, parameter in module.named_parameters(recurse=False):
            decay = weight_decay if quantizer is None and parameter.dim() > 1 else 0.0
            rate = lr if quantizer is None else lr * quantizer.rates.get(name, 1.0)
            if parameter not in seen:  # layers may share their weights
                groups.setdefault((rate, decay), []).append(parameter)
                seen.add(parameter)
    return [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()]
