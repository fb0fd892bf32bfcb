"""The quantizer that tells PT2E what the machine can hold."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from tercel.sw.quantize.bit_widths import BitWidths, assign_bits, check_bits
from tercel.sw.quantize.families.add import plan_add
from tercel.sw.quantize.families.clamp import plan_clamp
from tercel.sw.quantize.families.pointwise import is_norm_module
from tercel.sw.quantize.families.pool import plan_average, plan_max
from tercel.sw.quantize.families.shape import plan_concatenation, plan_move
from tercel.sw.quantize.families.thresholds import plan_pointwise
from tercel.sw.quantize.families.weighted import is_weighted, plan_weighted
from tercel.sw.quantize.observers import ActivationObserver, PerChannelWeightObserver
from tercel.sw.quantize.plan import Plan, constant, module_path
from tercel.sw.quantize.scheme import Scheme, largest_code
from tercel.sw.quantize.schemes import find_scheme
from tercel.sw.quantize.torchao_import import import_torchao

import_torchao()
from torchao.quantization.pt2e.quantizer import (  # noqa: E402  (its import is noisy)
    DerivedQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY  # noqa: E402  (its import is noisy)

_FAMILIES: tuple[Callable[[Node, Plan], bool], ...] = (
    plan_pointwise, plan_weighted, plan_add, plan_clamp, plan_average, plan_max, plan_move, plan_concatenation,
)  # fmt: skip
_BIAS_LIMIT = (1 << 31) - 1


def make_plan(graph_module: GraphModule, *, thresholds: bool = False) -> Plan:
    """Decide which tensors of a captured graph carry codes. Operators that no family knows stay in float, between codes.

    ``thresholds``: see :class:`~tercel.sw.quantize.plan.Plan`.
    """
    plan = Plan(thresholds=thresholds)
    for node in graph_module.graph.nodes:
        if (node.op == "call_function" or is_norm_module(node)) and node not in plan.fused:
            any(family(node, plan) for family in _FAMILIES)
    return plan


def _bias_scale(observers: list[ActivationObserver | PerChannelWeightObserver]) -> tuple[Tensor, Tensor]:
    """Scales of a bias: the input's times the weights'."""
    activation, weight = (observer.calculate_qparams()[0] for observer in observers)
    scales = activation * weight
    return scales, torch.zeros(len(scales), dtype=torch.int64)


def give_each_layer_constants(graph_module: GraphModule) -> None:
    """Give every convolution and linear layer weights and a bias that no other reads, so that each may be changed alone."""
    graph = graph_module.graph
    for number, node in enumerate(node for node in graph.nodes if node.op == "call_function" and is_weighted(node)):
        weight = constant(graph_module, node.args[1])
        old = node.args[2] if len(node.args) > 2 else None
        bias = torch.zeros(len(weight)) if old is None else constant(graph_module, old)
        own = []
        with graph.inserting_before(node):
            for name, value in ((f"_weight_{number}", weight), (f"_bias_{number}", bias)):
                graph_module.register_buffer(name, value.detach().clone())
                own.append(graph.get_attr(name))
        node.args = (node.args[0], *own, *node.args[3:])
    graph.eliminate_dead_code()
    graph_module.recompile()


class TercelQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates a captured graph: which tensors carry codes, on which grids.

    Activations are unsigned codes of 8 bits, one scale and zero point a tensor, zero exactly a code. Weights are signed, symmetric,
    2..8 bits, with a scale per output channel after the scheme. Biases are int32 with the scale of input times weights. A chain that
    the machine runs as one operator is rounded once, at its end::

        conv | linear (-> batch norm)      -> clamp, ...
        conv (-> batch norm) -> add        -> clamp, ...     the convolution's sums are not rounded before the add
        average pool | mean over H and W   -> clamp, ...

    Max pools, clamps of their own, pads, reshapes, slices, dropout and concatenation keep the scale of what they read. Of two
    convolutions that meet in an add, the later keeps its sums. A depthwise convolution is rounded before an add.

    :func:`tercel.sw.quantize.quantize` is the whole flow; the class serves flows of your own with ``prepare_pt2e`` and ``convert_pt2e``.

    Parameters
    ----------
    scheme
        Weight scale scheme or its name.
    bits
        Weight bits: of all layers, or by patterns on module names, the last match counting; the scheme's own elsewhere.
    """

    def __init__(self, *, scheme: str | Scheme = "shift8", bits: BitWidths = None) -> None:
        self.scheme = find_scheme(scheme)
        self.bits = check_bits(bits)

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Give each layer with weights constants of its own."""
        give_each_layer_constants(model)
        return model

    def annotate(self, model: GraphModule) -> GraphModule:
        """Write the annotations.

        :class:`~tercel.sw.quantize.errors.QuantizeError` if a pattern of ``bits`` matches no layer.
        """
        plan = make_plan(model)
        widths = assign_bits(self.bits, [module_path(node) for node in plan.weighted], default=self.scheme.bits)
        layer_bits = dict(zip(plan.weighted, widths, strict=True))
        for node in model.graph.nodes:
            annotation = QuantizationAnnotation(allow_implicit_sharing=False, _annotated=True)
            if node in plan.quantized:
                root = plan.root(node)
                annotation.output_qspec = self._activation() if root is node else SharedQuantizationSpec(root)
            if node in layer_bits:
                source, weight, bias = node.args[:3]
                annotation.input_qspec_map[weight] = self._weight(layer_bits[node])
                annotation.input_qspec_map[bias] = self._bias([source, (weight, node)])
            if annotation.input_qspec_map or annotation.output_qspec is not None:
                node.meta[Q_ANNOTATION_KEY] = annotation
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing is refused here: what the machine cannot run is the importer's to report."""

    @staticmethod
    def _activation() -> QuantizationSpec:
        return QuantizationSpec(
            dtype=torch.uint8, quant_min=0, quant_max=255, qscheme=torch.per_tensor_affine, observer_or_fake_quant_ctr=ActivationObserver
        )

    def _weight(self, bits: int) -> QuantizationSpec:
        return QuantizationSpec(
            dtype=torch.int8,
            quant_min=-largest_code(bits),
            quant_max=largest_code(bits),
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            observer_or_fake_quant_ctr=PerChannelWeightObserver.with_args(scheme=self.scheme, bits=bits),
        )

    @staticmethod
    def _bias(derived_from: list[Node | tuple[Node, Node]]) -> DerivedQuantizationSpec:
        return DerivedQuantizationSpec(
            derived_from=derived_from,
            derive_qparams_fn=_bias_scale,
            dtype=torch.int32,
            quant_min=-_BIAS_LIMIT - 1,
            quant_max=_BIAS_LIMIT,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        )
