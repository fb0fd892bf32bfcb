"""Networks with quantize and dequantize operators written out, as quantization flows leave them, and their comparison."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  (registers the operators)

from tercel.hw.config import BASE, Config
from tercel.sw.graph.codes import from_codes, to_codes
from tercel.sw.graph.integer_graph import IntegerGraph, LayerNode
from tercel.sw.graph.reference import run_reference
from tercel.sw.importer import Imported, import_exported

QDQ = torch.ops.quantized_decomposed


class Quant(nn.Module):
    """Quantize and dequantize an activation."""

    def __init__(self, scale: float, zero_point: int = 0, *, low: int = -128, high: int = 127, dtype: torch.dtype = torch.int8) -> None:
        super().__init__()
        self.numbers = (scale, zero_point, low, high, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return QDQ.dequantize_per_tensor(QDQ.quantize_per_tensor(x, *self.numbers), *self.numbers)


class Weight(nn.Module):
    """Stored codes behind a dequantize operator: random, or given; per channel where ``scales`` has more than one value."""

    def __init__(
        self,
        shape: Sequence[int],
        *,
        scales: Sequence[float] | float = 0.01,
        zero_points: Sequence[int] | int = 0,
        bits: int = 8,
        unsigned: bool = False,
        codes: np.ndarray | None = None,
        limits: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.low, self.high = limits or ((0, (1 << bits) - 1) if unsigned else (-(1 << bits - 1), (1 << bits - 1) - 1))
        self.dtype = torch.uint8 if unsigned else torch.int8
        random = np.random.default_rng(seed)
        codes = random.integers(self.low, self.high + 1, tuple(shape)) if codes is None else codes
        self.register_buffer("codes", torch.tensor(codes).to(self.dtype))
        self.single = isinstance(scales, float)
        self.scale, self.zero_point = scales, zero_points
        if not self.single:
            self.register_buffer("scales", torch.tensor(scales, dtype=torch.float32))
            points = [zero_points] * len(scales) if isinstance(zero_points, int) else zero_points
            self.register_buffer("zero_points", torch.tensor(points))

    def forward(self) -> Tensor:
        if self.single:
            return QDQ.dequantize_per_tensor(self.codes, self.scale, self.zero_point, self.low, self.high, self.dtype)
        return QDQ.dequantize_per_channel(self.codes, self.scales, self.zero_points, 0, self.low, self.high, self.dtype)


class Bias(nn.Module):
    """int32 codes with the scale of input times weights, as quantizers derive it."""

    def __init__(self, count: int, scales: Sequence[float] | float, *, limit: int = 2000, seed: int = 1) -> None:
        super().__init__()
        random = np.random.default_rng(seed)
        self.register_buffer("codes", torch.tensor(random.integers(-limit, limit + 1, count), dtype=torch.int32))
        self.register_buffer("scales", torch.tensor(np.broadcast_to(scales, count).copy(), dtype=torch.float32))
        self.register_buffer("zero_points", torch.zeros(count, dtype=torch.int64))

    def forward(self) -> Tensor:
        return QDQ.dequantize_per_channel(self.codes, self.scales, self.zero_points, 0, -(2**31), 2**31 - 1, torch.int32)


class Conv(nn.Module):
    """A convolution of dequantized codes without a quantize operator behind it."""

    def __init__(self, weight: Weight, bias: nn.Module | Tensor | None = None, **options: object) -> None:
        super().__init__()
        self.weight, self.options = weight, options
        if isinstance(bias, Tensor):
            self.register_buffer("plain", bias)
            self.bias = None
        else:
            self.plain, self.bias = None, bias

    def forward(self, x: Tensor) -> Tensor:
        bias = self.plain if self.bias is None else self.bias()
        return F.conv2d(x, self.weight(), bias, **self.options)


class Linear(nn.Module):
    """As :class:`Conv`, a matrix product."""

    def __init__(self, weight: Weight, bias: nn.Module | None = None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight(), None if self.bias is None else self.bias())


class Net(nn.Module):
    """Modules by name, and a function that runs them: ``run(net, x)``."""

    def __init__(self, run: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def sandwich(middle: nn.Module, *, scale: float = 0.0987, zero_point: int = -7, source: nn.Module | None = None) -> nn.Module:
    """Quantize, the module, quantize."""
    return nn.Sequential(source or Quant(0.02, 3), middle, Quant(scale, zero_point))


def only(graph: IntegerGraph) -> LayerNode:
    """The only layer."""
    (layer,) = graph.layers()
    return layer


def export(model: nn.Module, *shape: int) -> torch.export.ExportedProgram:
    """The model captured on one image of ``shape`` (channels, height, width)."""
    return torch.export.export(model.eval(), (torch.zeros(1, *shape),))


def agree(
    model: nn.Module,
    *shape: int,
    config: Config = BASE,
    batch: int = 3,
    share: float = 4e-3,
    spread: float = 1.0,
    at_least: int = 12,
    **options: object,
) -> Imported:
    """Import a model and compare it with itself in PyTorch: at most ``share`` of the codes differ, by 1."""
    program = export(model, *shape)
    imported = import_exported(program, config=config, **options)
    images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(7)) * spread
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums near a half round either way after the order of their terms, which follows the threads
    try:
        (expected,) = (model(images),) if isinstance(model(images), Tensor) else model(images)
    finally:
        torch.set_num_threads(threads)
    graph = imported.graph
    (name,) = graph.inputs
    values = images.numpy()
    values = values.transpose(0, 2, 3, 1) if values.ndim == 4 else values[:, None, None, :]
    result = run_reference(graph, {name: to_codes(graph.tensors[name], values)})
    output = graph.tensors[graph.outputs[0]]
    real = from_codes(output, result[output.name]).transpose(0, 3, 1, 2).reshape(expected.shape)
    steps = np.rint((real - expected.numpy()) / output.scale)
    assert np.abs(steps).max() <= 1
    assert (steps != 0).mean() <= share, (steps != 0).mean()
    assert len(np.unique(result[output.name])) >= at_least
    return imported
