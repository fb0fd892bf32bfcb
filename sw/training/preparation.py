"""From a float network to one that trains as the machine will compute it.

The network's operators are captured as a graph; between them go modules that round weights and activations, and batch norms and dropout
become modules again, so that ``train()`` and ``eval()`` work::

    weight -> weight quantizer -+------ scales -----+
                                v                   v
      activation quantizer -> conv -------------> norm -> relu -> activation quantizer ->
                 +----------- scale ----------------^

Parameters and running statistics keep the names that they have in the network.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.graph import CodeGen
from torch.utils._pytree import TreeSpec, tree_unflatten

from tercel.sw.quantize.bit_widths import BitWidths
from tercel.sw.quantize.capture import capture
from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.quantize.families.pointwise import mark_norm_module
from tercel.sw.quantize.plan import Plan, constant, module_path
from tercel.sw.quantize.quantizer import make_plan
from tercel.sw.training.activation_quantizer import ActivationQuantizer
from tercel.sw.training.norm import ShiftNorm, ShiftScales, round_bias
from tercel.sw.training.norm_capture import BATCH_NORM, CapturedNorm, captured_norm, make_gains_positive, take_norms
from tercel.sw.training.placement import activation_bits, keeps_codes, layer_bits, rounded_node
from tercel.sw.training.schemes import find_training_scheme
from tercel.sw.training.training_scheme import TrainingScheme
from tercel.sw.training.uniform_weights import UniformWeights
from tercel.sw.training.weight_quantizer import WeightQuantizer

_DROPOUTS = {torch.ops.aten.dropout.default: nn.Dropout, torch.ops.aten.feature_dropout.default: nn.Dropout2d}
_NORM_NAMES = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def check_example(example: object) -> Tensor:
    """``example`` as float32 on the CPU; :class:`~tercel.sw.quantize.errors.QuantizeError` if it is no batch of images."""
    if not isinstance(example, Tensor) or not example.is_floating_point() or example.dim() != 4 or not len(example):
        shown = list(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise QuantizeError(f"example must be real numbers of the shape [images, channels, height, width], not {shown} (take a batch)")
    if not bool(torch.isfinite(example).all()):
        raise QuantizeError("example must be finite, but holds NaN or infinity (check how the images are normalised)")
    example = example.detach().to(device="cpu", dtype=torch.float32)
    return example if len(example) > 1 else example.repeat(2, 1, 1, 1)


@torch.no_grad()
def node_values(graph_module: GraphModule, example: Tensor) -> dict[Node, Any]:
    """The values of all nodes of a graph on ``example``."""
    interpreter = Interpreter(graph_module, garbage_collect_values=False)
    interpreter.run(example)
    return interpreter.env


class _Rewriter:
    """Puts modules between the operators of a captured graph."""

    def __init__(self, graph_module: GraphModule, scheme: TrainingScheme) -> None:
        self.graph_module, self.graph, self.scheme = graph_module, graph_module.graph, scheme
        self.norm_paths: dict[tuple[str, str], str] = {}
        self.activation_paths: dict[Node, str] = {}

    def has(self, path: str) -> bool:
        """Whether there is a module, parameter or buffer of that path."""
        owner, _, name = path.rpartition(".")
        try:
            return hasattr(self.graph_module.get_submodule(owner), name)
        except AttributeError:
            return False

    def add(self, path: str, module: nn.Module) -> str:
        """Register a module under ``path``, with a number behind it if that is taken; returns its path."""
        number, free = 0, path
        while self.has(free):
            number += 1
            free = f"{path}_{number}"
        self.graph_module.add_submodule(free, module)
        return free

    def call_behind(self, node: Node, path: str, *others: Any) -> None:
        """Call a module on ``node``'s output, for all that read it so far."""
        readers = list(node.users)
        with self.graph.inserting_after(node):
            call = self.graph.call_module(path, (node, *others))
        call.meta = dict(node.meta)
        for reader in readers:
            reader.replace_input_with(node, call)

    def finish_layer(self, layer: Node, norm: CapturedNorm | None, *, source: Node, end: Node, bits: int) -> None:
        """Round the weights and the bias of a layer, and bring its scales to powers of two.

        ``source`` is the tensor that it reads, ``end`` the one in which its output is rounded.
        """
        weight_node = layer.args[1]
        assert isinstance(weight_node, Node)
        weight = constant(self.graph_module, weight_node)
        path, fresh = self._quantizer(weight_node, weight, bits=bits)
        quantizer = self.graph_module.get_submodule(path)
        assert isinstance(quantizer, WeightQuantizer)
        with self.graph.inserting_before(layer):
            rounded = self.graph.call_module(path, (weight_node,))
            scales = self.graph.call_method("scales", (self.graph.get_attr(path), weight_node))
            input_scale = self._input_scale(source, end)
        shifts: ShiftNorm | ShiftScales = ShiftScales(len(weight)) if norm is None else norm.module(self.graph_module)
        if fresh:
            quantizer.align(weight, shifts.factors)
        shifts.choose_exponents(quantizer.scales(weight), hold=False)
        bias = layer.args[2] if len(layer.args) > 2 else None
        if norm is not None:
            layer.update_arg(1, rounded)
            key = norm.path, str(weight_node.target)
            if key not in self.norm_paths:
                self.norm_paths[key] = self.place_norm(norm.path, shifts)
            self.call_behind(layer, self.norm_paths[key], scales, input_scale, bias)
            return
        with self.graph.inserting_before(layer):
            if quantizer.per_channel:
                shifts_path = self.add(_beside(weight_node, "shifts"), shifts)
                rounded = self.graph.call_module(shifts_path, (rounded, scales))
                scales = self.graph.call_method("powers", (self.graph.get_attr(shifts_path),))
            layer.update_arg(1, rounded)
            if bias is not None and input_scale is not None:
                layer.update_arg(2, self.graph.call_function(round_bias, (bias, scales, input_scale)))

    def _input_scale(self, source: Node, end: Node) -> Node | None:
        """The scale of a layer's input, for rounding its bias; None where thresholds take the bias up as it is."""
        ending = self.graph_module.get_submodule(self.activation_paths[end])
        if isinstance(ending, ActivationQuantizer) and ending.counts_thresholds:
            return None
        return self.graph.call_method("get_scale", (self.graph.get_attr(self.activation_paths[source]),))

    def _quantizer(self, weight_node: Node, weight: Tensor, *, bits: int) -> tuple[str, bool]:
        """The path of the weights' quantizer, and whether it is new: layers that share weights share it."""
        path = _beside(weight_node, "quantizer")
        if self.has(path):
            return path, False
        if isinstance(weight, nn.Parameter):
            return self.add(path, self.scheme.weight_quantizer(weight, bits=bits)), True
        return self.add(path, UniformWeights(weight, bits=bits, learned=False)), True

    def place_norm(self, path: str, norm: nn.Module) -> str:
        """Put a norm in the place of the network's, or beside what else that module holds; returns its path."""
        owner = self.graph_module.get_submodule(path) if path else self.graph_module
        quantizers = {name: child for name, child in owner.named_children() if isinstance(child, ActivationQuantizer)}
        names = {name.partition(".")[0] for name in owner.state_dict()} | {name for name, _ in owner.named_children()}
        if path and names - set(quantizers) <= _NORM_NAMES:
            for name, child in quantizers.items():
                norm.add_module(name, child)
            parent, _, name = path.rpartition(".")
            setattr(self.graph_module.get_submodule(parent), name, norm)
            return path
        return self.add(f"{path}.norm".lstrip("."), norm)

    def round_activations(self, plan: Plan, values: dict[Node, Any], widths: dict[Node, int]) -> None:
        """Round all tensors that carry codes, but those that are codes already."""
        groups: dict[Node, list[Node]] = {}
        for node in self.graph.nodes:
            if node in plan.quantized:
                groups.setdefault(plan.root(node), []).append(node)
        codes = {node for node in plan.quantized if keeps_codes(node, plan)}
        for root, nodes in groups.items():
            seen = torch.cat([values[node].flatten() for node in nodes])
            where = "the input" if root.op == "placeholder" else f"module {module_path(root)!r} ({root.target})"
            if not bool(torch.isfinite(seen).all()):
                raise QuantizeError(f"the output of {where} must be finite on the example, but holds NaN or infinity (check the weights)")
            quantizer = self.scheme.activation_quantizer(seen, bits=widths[root])
            name = "input_quantizer" if root.op == "placeholder" else f"{module_path(root)}.activation_quantizer"
            path = self.add(name, quantizer)
            self.activation_paths |= dict.fromkeys(nodes, path)
            for node in nodes:
                if node not in codes:
                    self.call_behind(node, path)

    def revive(self) -> None:
        """Replace dropout and the norms that stand alone by modules that know training from evaluation."""
        for node in list(self.graph.nodes):
            if node.target in _DROPOUTS:
                path = module_path(node)
                dropout = _DROPOUTS[node.target](node.args[1])
                taken = self.has(path) and any(self.graph_module.get_submodule(path).children())
                self._replace(node, self.add(path if not taken else f"{path}.dropout", dropout))
            elif node.target is BATCH_NORM:
                norm = captured_norm(node)
                live = norm.module(self.graph_module)
                plain = nn.BatchNorm2d(len(live.running_mean), eps=norm.eps, momentum=live.momentum)
                plain.load_state_dict({**live.state_dict(), "num_batches_tracked": torch.tensor(0)}, strict=False)
                if norm.operands[0] is not None:  # with its sign
                    plain.weight.data.copy_(constant(self.graph_module, norm.operands[0]))
                mark_norm_module(self._replace(node, self.place_norm(norm.path, plain)))

    def _replace(self, node: Node, path: str) -> Node:
        with self.graph.inserting_after(node):
            call = self.graph.call_module(path, (node.args[0],))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        self.graph.erase_node(node)
        return call


def _beside(weight_node: Node, what: str) -> str:
    """``features.0.0.weight_quantizer`` for ``features.0.0.weight``."""
    return f"{weight_node.target}_{what}"


def _make_plain(graph_module: GraphModule) -> None:
    """Let the graph take and return what the network does by itself, without torch.export's (un)packing, which cannot be copied."""
    output = next(node for node in reversed(graph_module.graph.nodes) if node.op == "output")
    output.args = (tree_unflatten(cast(Any, output.args[0]), cast(TreeSpec, graph_module._out_spec)),)
    graph_module.graph.set_codegen(CodeGen())


def prepare_model(model: nn.Module, *, example: Tensor, scheme: str | TrainingScheme, bits: BitWidths) -> GraphModule:
    """:func:`tercel.sw.training.prepare` itself, in a module that may import torch."""
    chosen = find_training_scheme(scheme)
    images = check_example(example)
    captured = capture(model, images, any_batch=True)
    values = node_values(captured, images)
    norms = take_norms(captured, values)
    make_gains_positive(captured, norms)
    plan = make_plan(captured, thresholds=chosen.thresholds)
    widths = layer_bits(captured, plan, scheme=chosen, bits=bits)
    tensor_bits = activation_bits(plan, widths, scheme=chosen)
    edges = {layer: (layer.all_input_nodes[0], rounded_node(layer, plan)) for layer in plan.weighted}
    rewriter = _Rewriter(captured, chosen)
    rewriter.round_activations(plan, values, tensor_bits)
    for layer, (source, end) in edges.items():
        rewriter.finish_layer(layer, norms.get(layer), source=source, end=end, bits=widths[layer])
    rewriter.revive()
    _make_plain(captured)
    for node in reversed(captured.graph.nodes):
        if node.op == "get_attr" and not node.users:
            captured.graph.erase_node(node)
    prepared = GraphModule(captured, captured.graph, class_name="Prepared")
    prepared.meta["thresholds"] = chosen.thresholds
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in prepared.named_parameters():
        parameter.requires_grad_(trains.get(name, parameter.requires_grad))
    return prepared.train(model.training)
