"""The whole of post-training quantization: capture, equalize, calibrate, align, choose scales, round weights, correct biases, convert."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from tercel.sw.quantize.alignment import align_channels, aligning_links
from tercel.sw.quantize.calibration import CalibrationImages, check_images
from tercel.sw.quantize.capture import capture
from tercel.sw.quantize.data_free import NormEvidence
from tercel.sw.quantize.equalization import equalize_channels
from tercel.sw.quantize.errors import QuantizeError
from tercel.sw.quantize.evidence import Evidence, ImageEvidence
from tercel.sw.quantize.links import find_links
from tercel.sw.quantize.prepared_graph import name_observers
from tercel.sw.quantize.quantizer import TercelQuantizer
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


def choose_evidence(
    calibration: Iterable[Tensor] | None,
    example: Tensor | None,
    *,
    input_range: tuple[float, float],
    rounding: Rounding | None,
    steps: int,
    checkpoint: Path | None,
) -> Evidence:
    """Calibration images, or batch norms where there is only an example; :class:`~tercel.sw.quantize.errors.QuantizeError` for neither."""
    if calibration is None:
        if example is None:
            raise QuantizeError("calibration must be given, not left out (some images; or example, an input, to quantize without images)")
        if rounding not in (None, "nearest"):
            raise QuantizeError(f"rounding must be nearest or left out without calibration, not {rounding!r} (it needs images)")
        check_rounding("nearest", steps=steps, checkpoint=checkpoint)
        images = check_images(example, name="example")
        if not len(images):
            raise QuantizeError("example must hold an input, not 0 (its values do not count: zeros of the input's shape do)")
        return NormEvidence(images[:1], input_range=input_range)
    if example is not None:
        raise QuantizeError("example must be left out with calibration, whose images show the input's shape (leave out one of them)")
    rounding = rounding or "compensated"
    check_rounding(rounding, steps=steps, checkpoint=checkpoint)
    return ImageEvidence(CalibrationImages(calibration), rounding=rounding, steps=steps, checkpoint=checkpoint)


def scaled_graph(
    model: nn.Module,
    evidence: Evidence,
    *,
    scheme: str | Scheme,
    bits: int | Mapping[str, int] | None,
    equalization: bool,
    report: Callable[[str], Callable[[int, int], None]],
) -> GraphModule:
    """A prepared graph with all its scales chosen; its weights are still real, channels equalized and aligned."""
    quantizer = TercelQuantizer(scheme=scheme, bits=bits)
    report("capture")(0, 1)
    captured = capture(model, evidence.example)
    evidence.read(captured)
    prepared: GraphModule = prepare_pt2e(captured, quantizer)
    name_observers(prepared)
    report("capture")(1, 1)
    links = find_links(prepared)
    if equalization:
        equalize_channels(links, evidence.maxima(prepared, links))
    evidence.observe(prepared, report=report)
    aligning = aligning_links(links)
    align_channels(aligning, evidence.statistics(prepared, aligning))
    choose_weight_scales(prepared)
    return prepared


def quantize_model(
    model: nn.Module,
    *,
    calibration: Iterable[Tensor] | None,
    example: Tensor | None,
    input_range: tuple[float, float],
    scheme: str | Scheme,
    bits: int | Mapping[str, int] | None,
    bias_correction: bool,
    rounding: Rounding | None,
    equalization: bool,
    rounding_steps: int,
    checkpoint: Path | None,
    progress: Progress | None,
) -> ExportedProgram:
    """:func:`tercel.sw.quantize.quantize` itself, in a module that may import torch."""

    def report(label: str) -> Callable[[int, int], None]:
        return lambda done, total: None if progress is None else progress(done, total, label)

    evidence = choose_evidence(
        calibration, example, input_range=input_range, rounding=rounding, steps=rounding_steps, checkpoint=checkpoint
    )
    prepared = scaled_graph(model, evidence, scheme=scheme, bits=bits, equalization=equalization, report=report)
    evidence.round_weights(prepared, bias_correction=bias_correction, report=report)
    report("convert")(0, 1)
    converted = convert_pt2e(prepared)
    drop_unused_constants(converted)
    with torch.no_grad():
        program = torch.export.export(converted, (evidence.example,))
    report("convert")(1, 1)
    return program
