"""The whole of post-training quantization: capture, calibrate, align channels, choose scales, round weights, correct biases, convert."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from tercel.sw.quantize.alignment import align_channels, aligning_links
from tercel.sw.quantize.calibration import KEPT_IMAGES, CalibrationImages, calibrate
from tercel.sw.quantize.capture import capture
from tercel.sw.quantize.links import channel_maxima, find_links
from tercel.sw.quantize.prepared_graph import name_observers
from tercel.sw.quantize.quantizer import TercelQuantizer
from tercel.sw.quantize.rounding import images_to_keep, round_network
from tercel.sw.quantize.roundings import Rounding, check_rounding
from tercel.sw.quantize.scheme import Scheme
from tercel.sw.quantize.torchao_import import import_torchao
from tercel.sw.quantize.weight_scales import choose_weight_scales

import_torchao()
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e  # noqa: E402  (its import is noisy)

Progress = Callable[[int, int, str], None]


def drop_unused_constants(graph_module: GraphModule) -> None:
    """Delete the parameters and buffers that no operator reads: the float weights, once their codes are constants."""
    used = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
    for name, _ in (*graph_module.named_parameters(remove_duplicate=False), *graph_module.named_buffers(remove_duplicate=False)):
        if name not in used:
            owner, _, attribute = name.rpartition(".")
            delattr(graph_module.get_submodule(owner), attribute)


def quantize_model(
    model: nn.Module,
    *,
    calibration: Iterable[Tensor],
    scheme: str | Scheme,
    bits: int | Mapping[str, int] | None,
    bias_correction: bool,
    rounding: Rounding,
    rounding_steps: int,
    checkpoint: Path | None,
    progress: Progress | None,
) -> ExportedProgram:
    """:func:`tercel.sw.quantize.quantize` itself, in a module that may import torch."""

    def report(label: str) -> Callable[[int, int], None]:
        return lambda done, total: None if progress is None else progress(done, total, label)

    check_rounding(rounding, steps=rounding_steps, checkpoint=checkpoint)
    quantizer = TercelQuantizer(scheme=scheme, bits=bits)
    images = CalibrationImages(calibration)
    report("capture")(0, 1)
    prepared: GraphModule = prepare_pt2e(capture(model, images.example), quantizer)
    name_observers(prepared)
    report("capture")(1, 1)
    kept = calibrate(prepared, images, keep=images_to_keep(rounding), progress=report("calibrate"))
    links = aligning_links(find_links(prepared))
    align_channels(links, channel_maxima(prepared, [link for link in links if link.is_clamped], kept[:KEPT_IMAGES]))
    choose_weight_scales(prepared)
    round_network(
        prepared,
        kept,
        rounding=rounding,
        steps=rounding_steps,
        checkpoint=checkpoint,
        bias_correction=bias_correction,
        report=report,
    )
    report("convert")(0, 1)
    converted = convert_pt2e(prepared)
    drop_unused_constants(converted)
    with torch.no_grad():
        program = torch.export.export(converted, (images.example,))
    report("convert")(1, 1)
    return program
