"""Places in external memory for the tensors that groups pass on, and for inputs and outputs."""

import numpy as np

from tercel.sw.compiler.group_plan import GroupPlan
from tercel.sw.compiler.state import Compilation
from tercel.sw.graph.integer_graph import ConcatNode
from tercel.sw.tensor_layout import ceil_div


def place(state: Compilation) -> None:
    """Fill in ``ports`` and ``views``.

    What is written lies before everything that is only read, so that no store can reach an input or a weight.
    """
    _find_views(state)
    for plan in state.groups:
        for name in plan.group.stored if isinstance(plan, GroupPlan) else (plan.output,):
            if name in state.views:
                continue
            tensor = state.graph.tensors[name]
            state.ports[name] = state.image.add_tensor(name, tensor.shape, signed=tensor.signed)
    for name in state.graph.inputs:
        tensor = state.source.tensors[name]
        zeros = np.zeros(tensor.shape, dtype=np.int64)
        state.ports[name] = state.image.add_input(name, zeros, signed=tensor.signed, fold=state.folds.get(name, 1))
    for name in state.wanted:
        state.image.share_output(state.ports[name])


def _find_views(state: Compilation) -> None:
    """Tensors that nothing but one concatenation reads from external memory go right to their place in it."""
    stored = {name for plan in state.groups if isinstance(plan, GroupPlan) for name in plan.group.stored}
    read: list[str] = []
    for plan in state.groups:
        read += [name for name, _ in plan.group.inputs] if isinstance(plan, GroupPlan) else plan.inputs
    for node in state.graph.nodes:
        if not isinstance(node, ConcatNode):
            continue
        first = 0
        for name in node.inputs:
            if name in stored and name not in state.wanted and read.count(name) == 1:
                state.views[name] = (node.output, first)
            first += ceil_div(state.graph.tensors[name].shape[2], state.config.lanes)
