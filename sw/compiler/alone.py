"""Nodes that run by themselves: layers cut into bands where no group holds them, and concatenations."""

from tercel.hw.config import Config
from tercel.hw.isa import Opcode
from tercel.sw.compiler.layer_code import layer_tensors
from tercel.sw.emitter import Emitter
from tercel.sw.graph.integer_graph import Activation, ConcatNode, LayerNode, Node
from tercel.sw.layer import lower_to_ports
from tercel.sw.layer_spec import LayerError
from tercel.sw.lowered_layer import LayerPorts
from tercel.sw.memory_image import MemoryImage
from tercel.sw.program import Port
from tercel.sw.tensor_layout import Placement, ceil_div
from tercel.sw.transfer import move_groups, move_tensor


def lower_alone(node: Node, image: MemoryImage, ports: dict[str, Port], tensors: dict[str, Activation]) -> Emitter:
    """The node's instructions, from and to external memory. :class:`LayerError` if not even its smallest piece fits.

    Inputs of a concatenation that have no port are in their places already.
    """
    if isinstance(node, ConcatNode):
        return _lower_concat(node, image.config, ports, tensors)
    return _lower_layer(node, image, ports)


def _lower_layer(layer: LayerNode, image: MemoryImage, ports: dict[str, Port]) -> Emitter:
    residual = None if layer.residual is None else ports[layer.residual]
    own = LayerPorts(input=ports[layer.input], output=ports[layer.output], residual=residual)
    return lower_to_ports(layer.spec, layer_tensors(layer), image, own).emitter


def _lower_concat(node: ConcatNode, config: Config, ports: dict[str, Port], tensors: dict[str, Activation]) -> Emitter:
    """Row by row of each part through the array scratchpad, in two places by turns."""
    emitter = Emitter()
    target = ports[node.output]
    first = 0
    stores: list[list[int]] = [[], []]
    for name in node.inputs:
        groups = ceil_div(tensors[name].shape[2], config.lanes)
        if name not in ports:
            first += groups
            continue
        source = ports[name]
        words = Placement.words_needed(banks=config.pixels, bank=0, pitch=source.columns, pixel=source.groups, rows=1)
        if 2 * words > config.array_depth:
            raise LayerError(
                f"{name} must need at most array_depth={config.array_depth} words a bank for two rows, not {2 * words} "
                f"(take a config with more array_depth, or fewer channels or columns)"
            )
        for row in range(source.shape[0]):
            half = len(stores[0]) > len(stores[1])
            place = Placement(
                banks=config.pixels,
                space=0,
                base=half * config.array_depth // 2,
                pitch=source.columns,
                pixel=source.groups,
                rows=1,
                first_row=row,
            )
            loaded = move_tensor(emitter, Opcode.LOAD, source, place, rows=1, column=0, columns=source.columns, after=stores[half][-1:])
            stores[half] += move_groups(
                emitter, Opcode.STORE, target, place, rows=1, columns=source.columns, groups=(first, groups), after=[loaded]
            )
        first += groups
    return emitter
