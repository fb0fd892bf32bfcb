"""What each layer's width does to the network's output, measured one layer at a time.

For each width the float network is prepared as for quantization at that width, channels aligned and scales chosen. Then one layer at a
time gets its rounded weights, all others and all activations stay real, and the outputs are computed again from there on. The error is
the squared change of the outputs over their variance: the noise-to-signal ratio that this layer alone leaves. The mean change of each of
the layer's channels does not count, as bias correction takes it back.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from tercel.sw.quantize.calibration import CalibrationImages
from tercel.sw.quantize.compensated_rounding import round_weights
from tercel.sw.quantize.evidence import ImageEvidence
from tercel.sw.quantize.flow import scaled_graph
from tercel.sw.quantize.plan import constant
from tercel.sw.quantize.prepared_graph import WeightedLayer, weighted_layers
from tercel.sw.quantize.scheme import Scheme


class Progress(Protocol):
    """A function that is told how far the work is."""

    def __call__(self, done: int, whole: int, what: str) -> None:
        """``done`` of ``whole`` steps (0 where it is unknown) of ``what``."""


def _silent(_: str) -> Callable[[int, int], None]:
    return lambda done, whole: None


class _Recording:
    """All values that a prepared graph makes of one image, its observers left out."""

    def __init__(self, graph_module: GraphModule, image: Tensor) -> None:
        self.nodes = list(graph_module.graph.nodes)
        self.values: dict[Node, Any] = {}
        for node in self.nodes:
            if node.op == "placeholder":
                self.values[node] = image
            elif node.op == "get_attr":
                self.values[node] = constant(graph_module, node)
            elif node.op != "output":
                self.values[node] = self.run(node, self.values)

    def outputs(self, changed: Mapping[Node, Any] | None = None) -> Tensor:
        """The network's outputs in one row; with other values for some nodes, everything behind these is computed again."""
        values = dict(changed or {})
        if values:
            for node in self.nodes:
                if node not in values and node.op != "output" and any(source in values for source in node.all_input_nodes):
                    values[node] = self.run(node, values)
        ends = self.nodes[-1].all_input_nodes
        return torch.cat([values.get(node, self.values[node]).flatten() for node in ends])

    def run(self, node: Node, values: Mapping[Node, Any]) -> Any:
        """What a node makes of ``values``, of those recorded where it has none."""
        def pick(source: Node) -> Any:
            return values[source] if source in values else self.values[source]

        if node.op == "call_module":
            return pick(node.all_input_nodes[0])
        assert callable(node.target)
        return node.target(*map_arg(node.args, pick), **map_arg(node.kwargs, pick))


def _rounded_outputs(layer: WeightedLayer, recordings: Sequence[_Recording]) -> list[Tensor]:
    """What the layer makes of its real inputs with rounded weights, without the mean change of each channel."""
    weight = round_weights(layer, [recording.values[layer.input_node] for recording in recordings]).on_grid
    exact = [recording.values[layer.node] for recording in recordings]
    changed = [recording.run(layer.node, {layer.rounding_node: weight}) for recording in recordings]
    axis = 1 if exact[0].dim() == 4 else exact[0].dim() - 1
    others = [dim for dim in range(exact[0].dim()) if dim != axis]
    shift = torch.stack([(new - old).mean(dim=others, keepdim=True) for new, old in zip(changed, exact, strict=True)]).mean(dim=0)
    return [new - shift for new in changed]


@torch.no_grad()
def _errors(graph_module: GraphModule, images: Sequence[Tensor], *, done: Callable[[int, int], None]) -> dict[str, float]:
    recordings = [_Recording(graph_module, image) for image in images]
    exact = torch.stack([recording.outputs() for recording in recordings])
    power = float((exact - exact.mean(dim=0)).square().mean()) if len(images) > 1 else float(exact.var())
    layers = list(weighted_layers(graph_module))
    errors: dict[str, float] = {}
    for number, layer in enumerate(layers, start=1):
        values = _rounded_outputs(layer, recordings)
        found = torch.stack([recording.outputs({layer.node: value}) for recording, value in zip(recordings, values, strict=True)])
        errors[layer.name] = errors.get(layer.name, 0.0) + float((found - exact).square().mean()) / (power or 1.0)
        done(number, len(layers))
    return errors


def measure_sensitivity(
    model: nn.Module,
    *,
    calibration: Iterable[Tensor],
    scheme: str | Scheme,
    widths: Sequence[int],
    images: int,
    progress: Progress,
) -> dict[str, dict[int, float]]:
    """For each layer with weights, by module path, the noise-to-signal ratio that each width leaves in the outputs.

    Layers that one module makes (a module that is called twice) count as one. Every value that the network makes of ``images`` images is in
    memory at once.

    Parameters
    ----------
    model, calibration, scheme
        As for :func:`tercel.sw.quantize.quantize`.
    widths
        Weight bits, each in 2..8.
    images
        Calibration images that are looked at.
    progress
        Called with the layers done, their total, and what goes on, by these names.
    """
    batches = [calibration] if isinstance(calibration, Tensor) else list(calibration)
    found: dict[str, dict[int, float]] = {}
    for width in widths:
        evidence = ImageEvidence(CalibrationImages(batches), rounding="compensated", steps=0, checkpoint=None)
        prepared = scaled_graph(model, evidence, scheme=scheme, bits=width, equalization=False, report=_silent)
        label = f"sensitivity, {width} bits"
        errors = _errors(prepared, evidence.kept[:images], done=partial(progress, what=label))
        for layer, error in errors.items():
            found.setdefault(layer, {})[width] = error
    return found
