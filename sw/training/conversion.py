"""From a trained network with rounding modules to codes: the program of quantize and dequantize operators that the importer reads."""

import copy

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from tercel.sw.quantize.capture import check_finite
from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.quantize.plan import Plan, constant
from tercel.sw.quantize.quantizer import make_plan
from tercel.sw.quantize.torchao_import import import_torchao
from tercel.sw.quantize.weight_scales import BIAS_LIMIT
from tercel.sw.training.activation_quantizer import ActivationQuantizer
from tercel.sw.training.norm import ShiftNorm, ShiftScales, round_bias
from tercel.sw.training.placement import keeps_codes, rounded_node
from tercel.sw.training.weight_quantizer import WeightQuantizer

import_torchao()  # registers the quantize and dequantize operators

_INT32 = -(1 << 31), (1 << 31) - 1


class Folder:
    """Takes the modules out of a prepared graph, and puts codes in their place.

    Parameters
    ----------
    graph_module
        A prepared network of its own, in evaluation mode; it is changed.
    """

    def __init__(self, graph_module: GraphModule) -> None:
        self.graph_module, self.graph = graph_module, graph_module.graph
        self.rounded: dict[Node, ActivationQuantizer] = {}
        self.paths: dict[ActivationQuantizer, str] = {}
        self.count = 0

    def module(self, node: object) -> nn.Module | None:
        """The module that a node calls, None if it calls none."""
        return self.graph_module.get_submodule(str(node.target)) if isinstance(node, Node) and node.op == "call_module" else None

    def take_activations(self) -> None:
        """Take out activation quantizers and dropout; ``rounded`` keeps which tensor had which quantizer."""
        for node in list(self.graph.nodes):
            module = self.module(node)
            source = node.all_input_nodes[0] if module is not None else None
            if not isinstance(module, ActivationQuantizer | nn.Dropout | nn.Dropout2d):
                continue
            assert source is not None
            if isinstance(module, ActivationQuantizer):
                self.rounded[self._layer_of(source)] = module
                self.paths[module] = str(node.target)
            node.replace_all_uses_with(source)
            self.graph.erase_node(node)

    def _layer_of(self, node: Node) -> Node:
        """The layer in front of a norm; another node is itself."""
        source = node.args[0] if isinstance(self.module(node), ShiftNorm) else node
        assert isinstance(source, Node)
        return source

    def fold_layers(self) -> dict[Node, tuple[WeightQuantizer, Tensor, Tensor, Tensor]]:
        """Take out norms and weight quantizers, so that a layer reads its weights again.

        Returns each layer's quantizer, codes, scales ``[outputs]``, and real bias ``[outputs]``.
        """
        folded = {}
        for layer in list(self.graph.nodes):
            chain = self._weights_of(layer)
            if chain is None:
                continue
            quantizer, shifts, weight_node = chain
            weight = constant(self.graph_module, weight_node)
            codes, scales = quantizer.codes(weight)
            given = layer.args[2] if len(layer.args) > 2 else None
            if isinstance(given, Node) and given.target is round_bias:
                given = given.args[0]
                layer.update_arg(2, given)
            bias = torch.zeros(len(weight)) if given is None else constant(self.graph_module, given)
            norm_node = next((user for user in layer.users if isinstance(self.module(user), ShiftNorm)), None)
            norm = self.module(norm_node)
            if isinstance(norm, ShiftNorm):
                assert norm_node is not None
                scales, bias = norm.folded(scales, bias)
                norm_node.replace_all_uses_with(layer)
                self.graph.erase_node(norm_node)
            elif shifts is not None:
                scales, bias = shifts.folded(bias)
            layer.update_arg(1, weight_node)
            folded[layer] = quantizer, codes, scales.detach(), bias.detach().double()
        self.remove_unread()
        return folded

    def _weights_of(self, layer: Node) -> tuple[WeightQuantizer, ShiftScales | None, Node] | None:
        """A layer's weight quantizer, its powers of two if it has no norm, and the node of its weights; None for other operators."""
        node = layer.args[1] if layer.op == "call_function" and len(layer.args) > 1 else None
        shifts = self.module(node)
        if isinstance(shifts, ShiftScales):
            assert isinstance(node, Node)
            node = node.args[0]
        quantizer = self.module(node)
        if not isinstance(quantizer, WeightQuantizer):
            return None
        assert isinstance(node, Node)
        weight_node = node.args[0]
        assert isinstance(weight_node, Node)
        return quantizer, shifts if isinstance(shifts, ShiftScales) else None, weight_node

    def remove_unread(self) -> None:
        """Erase what no operator reads any more."""
        for node in reversed(self.graph.nodes):
            if node.op not in ("placeholder", "output") and not node.users:
                self.graph.erase_node(node)

    def insert_constant(self, values: Tensor, scales: Tensor, grid: tuple[int, int]) -> Node:
        """A constant of codes, and the operator that makes real numbers of them with a scale for each output."""
        names = []
        for what, tensor in (("codes", values), ("scales", scales), ("zero_points", torch.zeros(len(scales), dtype=torch.int64))):
            names.append(f"_{what}_{self.count}")
            self.graph_module.register_buffer(names[-1], tensor)
        self.count += 1
        codes, scale, zero_point = (self.graph.get_attr(name) for name in names)
        arguments = (codes, scale, zero_point, 0, *grid, values.dtype)
        return self.graph.call_function(torch.ops.quantized_decomposed.dequantize_per_channel.default, arguments)

    def insert_real(self, values: Tensor) -> Node:
        """A constant of real numbers, float32."""
        name = f"_real_{self.count}"
        self.count += 1
        self.graph_module.register_buffer(name, values.float())
        return self.graph.get_attr(name)

    def insert_activations(self, plan: Plan) -> dict[Node, ActivationQuantizer]:
        """Codes and real numbers again behind every tensor that carries codes; returns the quantizer of each."""
        quantizers = {plan.root(node): quantizer for node, quantizer in self.rounded.items()}
        found = {}
        kept = {node for node in plan.quantized if keeps_codes(node, plan)}
        for node in [node for node in self.graph.nodes if node in plan.quantized]:
            quantizer = found[node] = quantizers[plan.root(node)]
            readers = list(node.users)
            with self.graph.inserting_after(node):
                marker = self.graph.call_function(torch.ops.aten.alias.default, (node,))
            with self.graph.inserting_before(marker):
                insert = quantizer.insert_rounding if node in kept else quantizer.insert_codes
                try:
                    codes = insert(self.graph_module, node)
                    arguments = (codes, quantizer.scale, quantizer.zero_point, 0, quantizer.largest_code, torch.uint8)
                except QuantizeError as error:
                    raise QuantizeError(f"module {self.paths[quantizer]!r}: {error}") from error
                real = self.graph.call_function(torch.ops.quantized_decomposed.dequantize_per_tensor.default, arguments)
            self.graph.erase_node(marker)
            for reader in readers:
                reader.replace_input_with(node, real)
        return found


def _fitting(codes: Tensor, scales: Tensor, bias: Tensor, *, input_scale: float) -> tuple[Tensor, Tensor]:
    """Codes and scales, with larger scales for channels whose bias would leave its range in units of input scale times weight scale."""
    steps = torch.ceil((bias.abs() / (scales.double() * input_scale * (BIAS_LIMIT - 1))).clamp(min=1e-30).log2()).clamp(min=0)
    factors = torch.exp2(steps)
    shape = (-1, *[1] * (codes.dim() - 1))
    return torch.where(factors.reshape(shape) > 1, torch.round(codes / factors.reshape(shape)), codes), (scales * factors).float()


@torch.no_grad()
def convert_model(prepared: nn.Module) -> ExportedProgram:
    """:func:`tercel.sw.training.convert` itself, in a module that may import torch."""
    if not isinstance(prepared, GraphModule) or not any(isinstance(module, ActivationQuantizer) for module in prepared.modules()):
        raise QuantizeError(f"prepared must be a network that tercel.prepare made, not {type(prepared).__name__} (prepare and train it)")
    check_finite(prepared)
    private = copy.deepcopy(prepared).to(device="cpu", dtype=torch.float32).eval()
    image = next(node for node in private.graph.nodes if node.op == "placeholder")
    if "val" not in image.meta:
        raise QuantizeError("prepared must carry the shapes of its graph, which torch.save leaves out (load its state_dict into one that "
                            "tercel.prepare has made anew)")  # fmt: skip
    folder = Folder(private)
    folder.take_activations()
    layers = folder.fold_layers()
    plan = make_plan(private, thresholds=prepared.meta["thresholds"])
    inputs = {layer: layer.args[0] for layer in layers}
    ends = {layer: rounded_node(layer, plan) for layer in layers}
    quantizers = folder.insert_activations(plan)
    for layer, (quantizer, latent, exact, bias) in layers.items():
        source = inputs[layer]
        assert isinstance(source, Node)
        input_scale = quantizers[source].scale
        codes, scales = _fitting(latent, exact, bias, input_scale=input_scale)
        bias_scales = torch.tensor([input_scale], dtype=torch.float32) * scales
        with private.graph.inserting_before(layer):
            weight = folder.insert_constant(codes.to(torch.int8), scales, quantizer.code_range)
            if quantizers[ends[layer]].counts_thresholds:
                constant_bias = folder.insert_real(bias)
            else:
                constant_bias = folder.insert_constant(torch.round(bias / bias_scales.double()).to(torch.int32), bias_scales, _INT32)
            layer.args = (layer.args[0], weight, constant_bias, *layer.args[3:])
    folder.remove_unread()
    converted = GraphModule(private, private.graph)
    return torch.export.export(converted, (torch.zeros(1, *image.meta["val"].shape[1:]),))
