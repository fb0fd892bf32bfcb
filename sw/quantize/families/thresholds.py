"""Chains of functions of each value that end in thresholds, behind a tensor of codes that others read too."""

from torch.fx import Node

from tercel.sw.quantize.families.clamp import absorb_clamps
from tercel.sw.quantize.families.pointwise import is_constant, pointwise_input
from tercel.sw.quantize.plan import Plan


def plan_pointwise(node: Node, plan: Plan) -> bool:
    """Codes go in, and codes of another scale come out behind the chain; what reads constants alone carries none."""
    source = pointwise_input(node) if plan.thresholds else None
    if source is None:
        return plan.thresholds and is_constant(node)
    plan.quantize(source, absorb_clamps(node, plan))
    return True
