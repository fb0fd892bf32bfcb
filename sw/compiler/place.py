"""Places in external memory for the tensors that groups pass on, and for inputs and outputs."""

import numpy as np

from tercel.sw.compiler.group_plan import GroupPlan
from tercel.sw.compiler.state import Compilation


def place(state: Compilation) -> None:
    """Fill in ``ports``. What is written lies before everything that is only read, so that no store can reach an input or a weight."""
    for plan in state.groups:
        for name in plan.group.stored if isinstance(plan, GroupPlan) else (plan.output,):
            tensor = state.graph.tensors[name]
            state.ports[name] = state.image.add_tensor(name, tensor.shape, signed=tensor.signed)
    for name in state.graph.inputs:
        tensor = state.source.tensors[name]
        zeros = np.zeros(tensor.shape, dtype=np.int64)
        state.ports[name] = state.image.add_input(name, zeros, signed=tensor.signed, fold=state.folds.get(name, 1))
    for name in state.wanted:
        state.image.share_output(state.ports[name])
