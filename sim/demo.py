"""A whole pass through the tools on a network small enough for minutes: quantize, compile, run three ways, compare, report."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tercel.hw.config import Config
from tercel.sim.api import compile_network
from tercel.sim.execution import Execution, Progress, execute_program, execute_reference
from tercel.sim.network import CompiledNetwork
from tercel.sim.tensors import input_codes, output_values
from tercel.sw.layer_spec import Integers

if TYPE_CHECKING:
    from torch import nn

    from tercel.sw.zoo.network import ImageNetwork


@dataclass(frozen=True, kw_only=True)
class Width:
    """A way to quantize: a scheme, and the bits of the weights; depthwise layers, the first and the last layer always have 8.

    ``trained`` takes the parameters that were trained with ternary weights in place of those that were trained in floating point.
    """

    name: str
    scheme: str
    bits: int
    trained: bool = False


WIDTHS = (
    Width(name="8-bit", scheme="shift8", bits=8),
    Width(name="4-bit", scheme="shift8", bits=4),
    Width(name="ternary", scheme="ternary", bits=2),
    Width(name="ternary-trained", scheme="ternary", bits=2, trained=True),
)
GOLDEN_IMAGES = 8
RTL_IMAGES = 2


@dataclass(frozen=True, kw_only=True)
class WidthResult:
    """One width's figures. ``accuracy`` is a share, 0..1, of the test images; the others count images, and those with equal codes."""

    name: str
    accuracy: float
    golden_images: int
    golden_equal: int
    rtl_images: int
    rtl_equal: int
    cycles: int
    estimated_cycles: int
    utilization: float
    program: str
    report: str


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The demo's figures; ``float_accuracy`` is that of the trained network in floating point."""

    config: str
    images: int
    float_accuracy: float
    widths: tuple[WidthResult, ...]

    @property
    def equal(self) -> bool:
        """Whether reference, golden model and RTL gave the same codes on every image that they shared."""
        return all(width.golden_equal == width.golden_images and width.rtl_equal == width.rtl_images for width in self.widths)

    def as_json(self) -> dict[str, Any]:
        """The figures for a script."""
        return {"equal": self.equal, **asdict(self)}


def run_demo(
    config: Config, folder: Path, *, widths: Sequence[Width] = WIDTHS, rtl: bool = True, progress: Progress | None = None
) -> DemoResult:
    """Take the trained digits network through the tools.

    Parameters
    ----------
    config
        The machine.
    folder
        Takes a program and a report for each width; made if it is not there.
    widths
        The ways to quantize.
    rtl
        Also run in the RTL simulation.
    progress
        See :data:`~tercel.sim.execution.Progress`.
    """
    import torch

    from tercel.sw.quantize import quantize
    from tercel.sw.zoo.digits_data import digits_part

    notify = progress or (lambda *_: None)
    folder.mkdir(parents=True, exist_ok=True)
    test = digits_part("test")
    images = torch.from_numpy(test.normalized())
    calibration = torch.from_numpy(digits_part("calibration").normalized())
    with torch.no_grad():
        float_accuracy = _accuracy(_trained(ternary=False)(images).numpy(), test.labels)
    results = []
    for width in widths:
        notify(f"{width.name}: quantize and compile", 0, 0)
        model = _trained(ternary=width.trained)
        quantized = quantize(model, calibration=[calibration], scheme=width.scheme, bits=layer_bits(model, width.bits))
        network = compile_network(quantized, config=config, image_format=model.image_format)
        inputs = input_codes(network.graph, images)
        notify(f"{width.name}: reference", 0, 0)
        reference = execute_reference(network.graph, inputs)
        golden = _execute(network, inputs, "golden", count=GOLDEN_IMAGES, progress=progress)
        simulated = _execute(network, inputs, "verilator", count=RTL_IMAGES, progress=progress) if rtl else None
        notify(f"{width.name}: report", 0, 0)
        results.append(_finish(network, width, folder, labels=test.labels, reference=reference, golden=golden, simulated=simulated))
    return DemoResult(config=config.name, images=len(test.labels), float_accuracy=float_accuracy, widths=tuple(results))


def _trained(*, ternary: bool) -> "ImageNetwork":
    from tercel.sw import zoo

    model = zoo.build("digits")
    weights = zoo.shipped_weights("digits", ternary=ternary)
    assert weights is not None
    zoo.load_weights(model, weights)
    return model


def layer_bits(model: "nn.Module", bits: int) -> dict[str, int]:
    """``bits`` for all layers but the first, the last and the depthwise ones, whose engine takes 8 bits at no cost."""
    from torch import nn

    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    depthwise = [name for name, module in layers.items() if isinstance(module, nn.Conv2d) and module.groups > 1]
    first, *_, last = layers
    return {"*": bits} | dict.fromkeys((first, *depthwise, last), 8)


def _execute(network: CompiledNetwork, inputs: dict[str, Integers], on: str, *, count: int, progress: Progress | None) -> Execution:
    first = {name: codes[:count] for name, codes in inputs.items()}
    return execute_program(network.program, first, on=on, expected_cycles=network.profile.cycles, progress=progress)


def _finish(
    network: CompiledNetwork,
    width: Width,
    folder: Path,
    *,
    labels: Integers,
    reference: Execution,
    golden: Execution,
    simulated: Execution | None,
) -> WidthResult:
    name = network.graph.outputs[0]
    codes = reference.tensors[name]
    program = folder / f"digits-{width.name}.tnpu"
    network.save(program)
    measured = None if simulated is None else network.result(simulated)
    page, _ = network.report(program.with_suffix(".html"), title=f"digits, {width.name} weights", measured=measured)
    return WidthResult(
        name=width.name,
        accuracy=_accuracy(output_values(network.graph, {name: codes})[name], labels),
        golden_images=len(golden.tensors[name]),
        golden_equal=_equal_images(golden.tensors[name], codes),
        rtl_images=0 if simulated is None else len(simulated.tensors[name]),
        rtl_equal=0 if simulated is None else _equal_images(simulated.tensors[name], codes),
        cycles=max(simulated.cycles) if simulated is not None else network.profile.cycles,
        estimated_cycles=network.profile.cycles,
        utilization=network.profile.utilization,
        program=str(program),
        report=str(page),
    )


def _accuracy(logits: Any, labels: Integers) -> float:
    return float(np.mean(np.asarray(logits).reshape(len(labels), -1).argmax(axis=1) == labels))


def _equal_images(found: Integers, expected: Integers) -> int:
    return sum(bool((one == other).all()) for one, other in zip(found, expected, strict=False))
