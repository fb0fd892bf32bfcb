"""What the importer refuses: every fault at once, each with its place, limit, value and way out; and operators on the host."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from qdq_models import Conv, Linear, Net, Quant, Weight, export
from torch import Tensor, nn

from tercel.hw.config import BASE, TINY, Config
from tercel.sw.graph.codes import to_codes
from tercel.sw.graph.reference import run_reference
from tercel.sw.host import HostError, enter, leave
from tercel.sw.importer import UnsupportedError, explain, import_exported

TERNARY = Config(name="ternary", digit_set="ternary")


def lineless(text: object) -> str:
    """Without the numbers of lines in the tests' own files."""
    return re.sub(r"(\.py):\d+", r"\1:LINE", str(text))


def between(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(Quant(0.02, 3), *middle, Quant(0.0987, -7))


def conv(**options: object) -> Conv:
    return Conv(Weight((8, 6, 1, 1)), **options)


CASES = {
    "operator": (between(conv(), nn.Hardswish()), "2: aten.hardswish.default: operator must be a supported one, not hardswish (use relu6)"),
    "float weights": (
        between(nn.Conv2d(6, 8, 1)),
        (
            "1: aten.conv2d.default: weight must be quantized, not float values "
            "(put a dequantize op between the stored codes and this operator)"
        ),
    ),
    "no quantizer between": (
        between(conv(), Conv(Weight((8, 8, 1, 1)))),
        (
            "2.conv2d: aten.conv2d.default at qdq_models.py:LINE: input must be quantized, not the float result of 1.conv2d "
            "(put quantize and dequantize ops between the two)"
        ),
    ),
    "average of floats": (
        between(conv(), nn.AdaptiveAvgPool2d(1)),
        (
            "2: aten.adaptive_avg_pool2d.default: input must be quantized, not the float result of 1.conv2d "
            "(put quantize and dequantize ops between the two)"
        ),
    ),
    "sum of two convolutions": (
        Net(lambda net, x: net.q(net.a(net.i(x)) + net.b(net.i(x))), i=Quant(0.02), a=conv(), b=conv(), q=Quant(0.1)),
        (
            "add: aten.add.Tensor at qdq_models.py:LINE: operands of a sum must be at most one convolution without a quantize "
            "op, not two of them (quantize one of them first)"
        ),
    ),
    "sum with a number": (
        between(conv(), Net(lambda net, x: x + 1.5)),
        (
            "2.add: aten.add.Tensor at qdq_models.py:LINE: other must be a tensor, not 1.5 "
            "(fold constants into the bias of the layer before)"
        ),
    ),
    "product": (
        between(Net(lambda net, x: x * x)),
        (
            "1.mul: aten.mul.Tensor at qdq_models.py:LINE: operator must be a supported one, not mul "
            "(fold constants into weights; a product of two activations does not run on this machine)"
        ),
    ),
    "kernel": (
        between(Conv(Weight((8, 6, 17, 1)), padding=(8, 0))),
        "1.conv2d: aten.conv2d.default at qdq_models.py:LINE: kernel must be in 1..16, not (17, 1) (split larger kernels)",
    ),
    "stride": (
        between(conv(stride=5)),
        "1.conv2d: aten.conv2d.default at qdq_models.py:LINE: stride must be in 1..4, not 5 (subsample in a layer of its own)",
    ),
    "two strides": (
        between(conv(stride=(1, 2))),
        (
            "1.conv2d: aten.conv2d.default at qdq_models.py:LINE: stride must be equal in rows and columns, not (1, 2) "
            "(subsample in a layer of its own)"
        ),
    ),
    "output not quantized": (
        nn.Sequential(Quant(0.02), conv()),
        (
            "1.conv2d: aten.conv2d.default at qdq_models.py:LINE: output of the network must be quantized, not the float result of "
            "1.conv2d (quantize the output too)"
        ),
    ),
    "input not quantized": (
        nn.Sequential(conv(), Quant(0.1)),
        (
            "0.conv2d: aten.conv2d.default at qdq_models.py:LINE: input must be quantized, not the float result of input "
            "(put quantize and dequantize ops between the two)"
        ),
    ),
    "16 bits": (
        between(Quant(0.001, low=-32768, high=32767, dtype=torch.int16)),
        (
            "1.quantize_per_tensor: quantized_decomposed.quantize_per_tensor.default at qdq_models.py:LINE: codes of an activation must be "
            "of 8 bits (-128..127 or 0..255), not -32768..32767 (quantize activations to int8 or uint8)"
        ),
    ),
    "zero points of channels": (
        between(Conv(Weight((8, 6, 1, 1), scales=[0.01] * 8, zero_points=list(range(8))))),
        (
            "1.conv2d: aten.conv2d.default at qdq_models.py:LINE: weight zero points must be equal in all channels, not 8 different "
            "(use symmetric weights)"
        ),
    ),
    "padding with ones": (
        between(nn.ConstantPad2d(1, 1.0), conv()),
        "1: aten.pad.default: value must be 0, not 1.0 (other values need a quantizer that knows them)",
    ),
    "uneven average": (
        between(nn.AvgPool2d(3, padding=1, count_include_pad=False)),
        (
            "1: aten.avg_pool2d.default: count_include_pad must be true where there is padding, not False "
            "(a mean over fewer pixels needs another divisor)"
        ),
    ),
    "mean over channels": (
        between(Net(lambda net, x: x.mean(1, keepdim=True))),
        (
            "1.mean: aten.mean.dim at qdq_models.py:LINE: dim must be rows and columns (2, 3) of an image, not [1] "
            "(average with adaptive_avg_pool2d)"
        ),
    ),
    "crop": (
        between(Net(lambda net, x: x[:, :, 1:, :]), conv()),
        (
            "1.slice: aten.slice.Tensor at qdq_models.py:LINE: slice must be every n-th row and column of a whole image, "
            "not dim 2, step 1 (crop with a convolution)"
        ),
    ),
    "batch norm": (
        between(conv(), nn.BatchNorm2d(8)),
        (
            "2: aten.batch_norm.default: operator must be a supported one, not batch_norm "
            "(quantize with a flow that folds it into the convolution before)"
        ),
    ),
    "two scales of the input": (
        Net(lambda net, x: net.q(net.a(x) + net.b(x)), a=Quant(0.02, 3), b=Quant(0.03, 3), q=Quant(0.1)),
        (
            "b.quantize_per_tensor: quantized_decomposed.quantize_per_tensor.default at qdq_models.py:LINE: quantize ops of an input must "
            "be one scale, zero point and sign, (0.02, 3, True), not (0.03, 3, True) (quantize the input once, before all branches)"
        ),
    ),
    "nothing to compute": (
        nn.Identity(),
        "input: output: output must be computed from the network's input, not an input or a constant (return what the layers compute)",
    ),
    "transposed": (
        between(Net(lambda net, x: x.permute(0, 2, 3, 1).contiguous())),
        (
            "1.permute: aten.permute.default at qdq_models.py:LINE: operator must be a supported one, not permute "
            "(keep images as batch, channels, rows, columns)"
        ),
    ),
    "host, not asked for": (
        nn.Sequential(between(conv()), nn.Softmax(1)),
        (
            "1: aten.softmax.int: operator must be a supported one, not softmax "
            "(leave it out at the end, or allow_host; it does not change the order of the classes)"
        ),
    ),
}


@pytest.mark.filterwarnings("ignore:Export is running in")
@pytest.mark.parametrize("name", CASES)
def test_rejections(name: str) -> None:
    model, message = CASES[name]
    with pytest.raises(UnsupportedError) as caught:
        import_exported(export(model, 6, 7, 7), config=BASE)
    heading, line = str(caught.value).splitlines()
    assert heading == "1 operator of the network cannot run:"
    assert lineless(line) == "  " + message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (
            between(nn.MaxPool2d(2)),
            TINY,
            "1: aten.max_pool2d.default: kind must be conv or linear, not max_pool (config tiny has no depthwise engine)",
        ),
        (
            between(conv()),
            TERNARY,
            (
                "1.conv2d: aten.conv2d.default at qdq_models.py:LINE: weights must be ternary (codes -1, 0, 1), not -128..127 "
                "(quantize with scheme ternary, or take a radix4 config)"
            ),
        ),
    ],
)
def test_rejections_of_a_machine(model: nn.Module, config: Config, message: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        import_exported(export(model, 6, 7, 7), config=config)
    assert lineless(caught.value).endswith(message)


def test_overflow_names_the_layer() -> None:
    """From the actual weights and bias, for any input."""
    bias = torch.tensor([0.0, 64424.0, 0, 0, 0, 0, 0, 0])
    codes = np.full((8, 6, 1, 1), 127)
    weight = Weight(codes.shape, codes=codes, scales=0.0015)
    with pytest.raises(UnsupportedError) as caught:
        import_exported(export(between(Conv(weight, bias)), 6, 5, 5), config=BASE)
    assert "1.conv2d: aten.conv2d.default at qdq_models.py:LINE: sums of channel 1 must be in" in lineless(caught.value)


def test_all_at_once() -> None:
    """Three faults in one error, in order; what only follows them is in the report, not in the error."""
    model = between(
        conv(), nn.Hardswish(), Quant(0.1), Conv(Weight((8, 8, 17, 1)), padding=(8, 0)), Quant(0.1), nn.Sigmoid(), nn.AvgPool2d(2)
    )
    program = export(model, 6, 7, 7)
    with pytest.raises(UnsupportedError) as caught:
        import_exported(program, config=BASE)
    assert str(caught.value).splitlines()[0] == "3 operators of the network cannot run:"
    assert [report.name for report in caught.value.operators] == ["2", "4.conv2d", "6"]
    reports = {report.name: report for report in explain(program, config=BASE)}
    assert reports["1.conv2d"].verdict == "fused" or reports["1.conv2d"].verdict == "placed"
    assert reports["7"].verdict == "rejected"
    assert (reports["4.conv2d"].reason, reports["4.conv2d"].limit, reports["4.conv2d"].value) == ("kernel", "in 1..16", "(17, 1)")


def test_strict() -> None:
    """What changes scales is an error."""
    model = between(Conv(Weight((2, 6, 1, 1), scales=[0.01, 0.007])))
    program = export(model, 6, 5, 5)
    assert len(import_exported(program, config=BASE).warnings) == 1
    with pytest.raises(
        UnsupportedError, match=r"ratios of the channels' weight scales must be powers of two up to 2\*\*15, not 42.9% off at most"
    ):
        import_exported(program, config=BASE, strict=True)


def test_explain_a_network_that_runs() -> None:
    model = between(conv(), nn.ReLU())
    reports = explain(export(model, 6, 5, 5), config=BASE)
    verdicts = [(report.operator.split(".")[1], report.verdict) for report in reports]
    assert ("conv2d", "placed") in verdicts and ("relu", "fused") in verdicts
    placed = next(report for report in reports if report.verdict == "placed")
    assert lineless(placed) == "1.conv2d: aten.conv2d.default placed, layer 1.conv2d at qdq_models.py:LINE"


def test_softmax_on_the_host() -> None:
    """After the layers; it gives what the network returns."""
    model = nn.Sequential(
        Quant(0.02, 3),
        conv(),
        nn.ReLU(),
        Quant(0.1, -128),
        nn.Flatten(),
        Linear(Weight((5, 200), scales=0.001)),
        Quant(0.05),
        nn.Softmax(1),
    )
    program = export(model, 6, 5, 5)
    imported = import_exported(program, config=BASE, allow_host=["softmax"])
    assert [report.verdict for report in imported.operators if "softmax" in report.operator] == ["host"]
    assert imported.host_head is None and imported.host_tail is not None
    images = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    tensor = imported.graph.tensors["input"]
    codes = np.clip(np.rint(images.numpy().transpose(0, 2, 3, 1) / tensor.scale) + 3, -128, 127).astype(int)
    (result,) = leave(imported.host_tail, imported.graph, run_reference(imported.graph, {"input": codes})).values()
    assert result.shape == (4, 5) and result.dtype == np.float32
    np.testing.assert_allclose(result, model(images).numpy(), atol=0.02)


def test_a_quantized_softmax_on_the_host() -> None:
    """Quantize operators behind it run there too; outputs of both kinds come back in order."""

    def run(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = net.logits(net.linear(torch.flatten(net.i(x), 1)))
        return net.scores(F.softmax(logits, 1)), logits

    model = Net(run, i=Quant(0.02, 3), linear=Linear(Weight((5, 150), scales=0.001)), logits=Quant(0.05), scores=Quant(1 / 256, -128))
    imported = import_exported(export(model, 6, 5, 5), config=BASE, allow_host=["softmax"])
    assert imported.graph.outputs == ("linear.linear",) and imported.host_tail is not None
    images = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    codes = to_codes(imported.graph.tensors["x"], images.numpy().transpose(0, 2, 3, 1))
    scores, logits = leave(imported.host_tail, imported.graph, run_reference(imported.graph, {"x": codes})).values()
    expected_scores, expected_logits = model(images)
    np.testing.assert_allclose(logits, expected_logits.numpy(), atol=0.051)
    np.testing.assert_allclose(scores, expected_scores.numpy(), atol=0.02)


def test_normalisation_on_the_host() -> None:
    """Before the layers; it takes what the network takes."""

    def run(net: Net, x: Tensor) -> Tensor:
        return net.q(net.conv(net.i((x - 0.5) / 0.25)))

    model = Net(run, i=Quant(0.02, 3), conv=conv(), q=Quant(0.0987))
    program = export(model, 6, 5, 5)
    imported = import_exported(program, config=BASE, allow_host=["sub", "aten.div.Tensor"])
    assert imported.host_head is not None and imported.host_tail is None
    images = torch.rand(3, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    codes = enter(imported.host_head, imported.graph, {"x": images.numpy()})
    result = run_reference(imported.graph, codes)[imported.graph.outputs[0]]
    expected = torch.round(model(images) / 0.0987).numpy().transpose(0, 2, 3, 1)
    assert (result != expected).mean() < 0.005


def test_host_in_the_middle() -> None:
    """Refused: what follows a host operator must be on the host too."""
    model = nn.Sequential(Quant(0.02, 3), nn.Sigmoid(), Quant(0.01), conv(), Quant(0.1))
    message = "3.conv2d: aten.conv2d.default at qdq_models.py:LINE: operator must be in allow_host, because it reads a result of the host"
    with pytest.raises(UnsupportedError) as caught:
        import_exported(export(model, 6, 5, 5), config=BASE, allow_host=["sigmoid"])
    assert message in lineless(caught.value)
    model = nn.Sequential(Quant(0.02, 3), conv(), Quant(0.1), nn.Sigmoid(), nn.ReLU())
    with pytest.raises(UnsupportedError, match="operator must be in allow_host, because it reads a result of the host, not relu"):
        import_exported(export(model, 6, 5, 5), config=BASE, allow_host=["sigmoid"])


def test_what_the_host_does_not_run() -> None:
    """Names that are none of its operators, and forms of operators that it lacks."""
    program = export(nn.Sequential(Quant(0.02, 3), conv(), Quant(0.1), nn.GELU()), 6, 5, 5)
    with pytest.raises(HostError, match=r"^allow_host must name operators of the host, not 'aten\.gelu\.default' \(they are exp, log, "):
        explain(program, config=BASE, allow_host=["aten.gelu.default"])

    def refused(run: Callable[[Tensor], Tensor], names: list[str]) -> str:
        model = Net(lambda net, x: run(net.o(net.conv(net.i(x)))), i=Quant(0.02, 3), conv=conv(), o=Quant(0.1))
        with pytest.raises(UnsupportedError) as caught:
            import_exported(export(model, 6, 5, 5), config=BASE, allow_host=names)
        return lineless(caught.value)

    assert "dim must be in 1..3, not 0 (on the host; 0 is the batch)" in refused(lambda x: F.softmax(x, 0), ["softmax"])
    assert "alpha must be 1, not 2 (the host runs the operator in its plain form)" in refused(lambda x: torch.add(x, 1, alpha=2), ["add"])
    assert "dim must be one dimension, not None (name it, or the batch " in refused(lambda x: x.argmax(), ["argmax"])
    assert "dtype must be float32 on the host, not torch.float64 (" in refused(lambda x: F.softmax(x, 1).double(), ["softmax"])
    assert "rounding_mode must be left out, not floor (" in refused(lambda x: torch.div(x, 2, rounding_mode="floor"), ["div"])
    whole = refused(lambda x: x.argmax(1).sigmoid(), ["argmax", "sigmoid"])
    assert "input must be real numbers, not whole numbers (what the host computes)" in whole


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_decomposed_programs_say_what_to_do() -> None:
    model = nn.Sequential(Quant(0.02, 3), nn.Flatten(), nn.Linear(150, 4), Quant(0.1))
    program = export(model, 6, 5, 5).run_decompositions()
    with pytest.raises(UnsupportedError, match="not addmm \\(import the program before run_decompositions\\)"):
        import_exported(program, config=BASE)


def test_training_mode_dropout() -> None:
    model = between(Net(lambda net, x: F.dropout(x, 0.5, training=True)), conv())
    with pytest.raises(UnsupportedError, match="model must be in eval mode, not in training mode \\(call eval\\(\\) before the export\\)"):
        import_exported(export(model, 6, 5, 5), config=BASE)


def test_dynamic_image_sizes() -> None:
    sizes = {2: torch.export.Dim("rows", min=4, max=64), 3: torch.export.Dim("columns", min=4, max=64)}
    program = torch.export.export(between(conv()).eval(), (torch.zeros(1, 6, 8, 9),), dynamic_shapes=(sizes,))
    with pytest.raises(
        UnsupportedError, match="input: input: shape must be static in all but the batch, not dynamic \\(export with fixed sizes\\)"
    ):
        import_exported(program, config=BASE)
    assert explain(program, config=BASE)[0].verdict == "rejected"
