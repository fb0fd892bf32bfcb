"""One module per family of operators: which of its tensors carry codes.

A family is a function ``(node, plan) -> bool``: False when the operator is not its own, else it writes its decisions to the plan.
"""
