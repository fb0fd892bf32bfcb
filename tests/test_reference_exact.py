"""The reference's floating-point kernels at the ends of their proven ranges, against whole numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_graphs import one_layer, random_layer, small_network
from test_reference import SPECS

from tercel.sw.graph.integer_graph import LayerNode
from tercel.sw.graph.reference import run_reference
from tercel.sw.graph.reference_torch import TorchLayer, exact_kernels
from tercel.sw.layer_spec import LayerSpec


def exactly(layer: LayerNode, codes: dict[str, np.ndarray]) -> np.ndarray:
    """Both engines on a layer, which must agree."""
    results = [run_reference(one_layer(layer), codes, engine=engine)[layer.output] for engine in ("numpy", "torch")]
    np.testing.assert_array_equal(*results)
    return results[0]


@pytest.mark.parametrize("shift", [1, 8, 14, 20, 24])
@pytest.mark.parametrize("seed", range(4))
def test_rounding_on_both_sides_of_every_step(shift: int, seed: int) -> None:
    """One channel for each sum just below, at and above where the code changes; channel shifts 0..15; sums up to the ends of 32 bits."""
    random = np.random.default_rng(seed)
    channels = 1536
    shifts = random.integers(0, 16, channels)
    multiplier = int(random.integers(1 << 15, 1 << 16))
    # The sum where q begins: v * M + 2**(e-1) >= q * 2**e.
    exponent, steps = [shift + int(s) for s in shifts], random.integers(-140, 140, channels).tolist()
    edges = [-((2 ** (e - 1) - q * 2**e) // multiplier) for e, q in zip(exponent, steps, strict=True)]
    limit = (1 << 31) - 40_000
    edges = [edge if abs(edge) < limit else int(random.integers(-limit, limit)) for edge in edges]
    weights = random.integers(-1, 2, (channels, 1, 1, 1))
    bias = np.array(edges) - 7 * weights.reshape(-1)
    spec = LayerSpec(
        kind="conv", input=(1, 3, 1), out=channels, multiplier=multiplier, shift=shift, out_signed=True, z_out=-9, lo=-100, hi=90
    )
    layer = replace(random_layer(spec, seed=0)[0], spec=spec, weights=weights, bias=bias, shift=shifts)
    codes = {"input": np.array([6, 7, 8]).reshape(1, 1, 3, 1)}
    result = exactly(layer, codes)
    sums = bias + np.array([6, 7, 8])[:, None] * weights.reshape(-1)
    expected = [
        [min(max((int(v) * multiplier + 2 ** (e - 1)) // 2**e - 9, -100), 90) for v, e in zip(row, exponent, strict=True)] for row in sums
    ]
    np.testing.assert_array_equal(result[0, 0], expected)
    # With large exponents the float path is not proven, and whole numbers take over.
    assert TorchLayer(layer).fits == (shift < 37)


@pytest.mark.parametrize("res_shift", [0, 9, 16])
def test_residuals_on_both_sides_of_every_step(res_shift: int) -> None:
    """Every residual code beside sums that bring it to a change of the output code."""
    channels, shift, multiplier, res_multiplier = 512, 24, 40961, 51199
    codes = np.arange(256)
    steps = np.random.default_rng(1).integers(-120, 120, channels)
    middle = res_multiplier * (int(codes[100]) - 3) << res_shift
    bias = np.array([-((2 ** (shift - 1) + middle - int(q) * 2**shift) // multiplier) for q in steps]) + np.arange(channels) % 3 - 1
    spec = LayerSpec(
        kind="conv",
        input=(16, 16, 1),
        out=channels,
        multiplier=multiplier,
        shift=shift,
        residual=True,
        z_res=3,
        res_multiplier=res_multiplier,
        res_shift=res_shift,
        z_out=128,
    )
    layer = replace(
        random_layer(replace(spec, shift=20), seed=0)[0],
        spec=spec,
        weights=np.zeros((channels, 1, 1, 1), dtype=np.int64),
        bias=bias,
        shift=np.zeros(channels, dtype=np.int64),
    )
    residual = np.broadcast_to(codes.reshape(1, 16, 16, 1), (1, 16, 16, channels))
    result = exactly(layer, {"input": np.zeros((1, 16, 16, 1), dtype=int), "residual": residual})
    assert TorchLayer(layer).fits
    total = bias * multiplier + ((codes[:, None] - 3) * res_multiplier << res_shift)
    np.testing.assert_array_equal(result.reshape(256, channels), np.clip((total + (1 << shift - 1) >> shift) + 128, 0, 255))


@pytest.mark.parametrize(("channels", "kernel", "dtype"), [(518, 1, torch.float32), (519, 1, torch.float64), (512, 3, torch.float64)])
def test_sums_at_the_ends_of_the_mantissa(channels: int, kernel: int, dtype: torch.dtype) -> None:
    """All codes 255 and all weights 127: 518 products are the last whose sum float32 holds."""
    spec = LayerSpec(kind="conv", input=(kernel, kernel, channels), out=8, kernel=(kernel, kernel), multiplier=40000, shift=33, z_out=100)
    layer, _ = random_layer(spec, seed=0)
    weights = np.full((8, kernel, kernel, channels), 127)
    weights[1] = -127
    weights[2, ..., ::2] = -127
    weights[3, ..., 0] = 126
    layer = replace(layer, spec=spec, weights=weights, bias=np.arange(8))
    assert TorchLayer(layer).dtype == dtype
    for fill in (255, 254):
        exactly(layer, {"input": np.full((1, *spec.input), fill)})


@pytest.mark.parametrize("name", SPECS)
def test_layers_without_the_float_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The integer arithmetic behind PyTorch's sums gives the same."""
    layer, tensors = random_layer(SPECS[name], seed=3)
    codes = {"input": tensors.input[None]} | ({"residual": tensors.residual[None]} if layer.residual else {})
    expected = run_reference(one_layer(layer), codes, engine="numpy")[layer.output]
    monkeypatch.setattr("tercel.sw.graph.reference_torch._fits", lambda *_: False)
    np.testing.assert_array_equal(run_reference(one_layer(layer), codes, engine="torch")[layer.output], expected)


def test_settings_of_the_process_do_not_count() -> None:
    """Reduced precision that a program switched on is off inside, and on again after."""
    graph = small_network()
    codes = {"input": np.random.default_rng(0).integers(-128, 128, (2, 12, 12, 3))}
    expected = run_reference(graph, codes, engine="numpy", keep=True)
    convolutions = torch.backends.mkldnn.conv
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "bf16"
    try:
        for name, values in run_reference(graph, codes, engine="torch", keep=True).items():
            np.testing.assert_array_equal(values, expected[name], err_msg=name)
        assert convolutions.fp32_precision == "bf16"
        with exact_kernels():
            assert convolutions.fp32_precision == "ieee"
    finally:
        convolutions.fp32_precision = before


def test_large_batches_run_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small_network()
    codes = {"input": np.random.default_rng(0).integers(-128, 128, (7, 12, 12, 3))}
    whole = run_reference(graph, codes)["classifier.out"]
    monkeypatch.setattr("tercel.sw.graph.reference._AT_ONCE", 2000)
    for engine in ("torch", "numpy"):
        np.testing.assert_array_equal(run_reference(graph, codes, engine=engine)["classifier.out"], whole)
