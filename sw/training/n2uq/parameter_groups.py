"""Learning rates of the method's authors."""

from typing import Any

from torch import nn

from tercel.sw.training.n2uq.learned_thresholds import LearnedThresholds


def parameter_groups(model: nn.Module, *, lr: float) -> list[dict[str, Any]]:
    """What an optimizer of PyTorch takes: all parameters of ``model`` at ``lr``, those of its learned thresholds at ``lr / 10``."""
    slow = {
        id(parameter): parameter for module in model.modules() if isinstance(module, LearnedThresholds) for parameter in module.parameters()
    }
    fast = [parameter for parameter in model.parameters() if id(parameter) not in slow]
    groups = [{"params": fast, "lr": lr}, {"params": list(slow.values()), "lr": lr / 10}]
    return [group for group in groups if group["params"]]
