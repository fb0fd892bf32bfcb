"""Operators on the host one by one: values as in PyTorch, types, and what is refused."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tercel.sw.host import KINDS, HostConstant, HostError, HostGraph, HostInput, HostOperator
from tercel.sw.host.operators import PARAMETERS
from tercel.sw.host.serialize import ends_from_plain, ends_to_plain

SHAPE = (3, 4, 5)
QUANTIZE = {"scale": 0.1, "zero_point": -3, "smallest": -100, "largest": 90, "dtype": "int8"}


def graph(*operators: HostOperator, constants: tuple[HostConstant, ...] = (), outputs: tuple[str, ...] = ("y",)) -> HostGraph:
    return HostGraph((HostInput("x", SHAPE),), constants, operators, outputs)


def one(kind: str, *inputs: str, **parameters: object) -> HostOperator:
    return HostOperator(kind, inputs or ("x",), "y", parameters)


def column(values: tuple[float, ...] = (0.5, -2.0, 3.0)) -> HostConstant:
    return HostConstant("c", (3, 1, 1), values)


def quantized(x: torch.Tensor) -> torch.Tensor:
    return torch.clamp(torch.round(x * (1 / 0.1)) - 3, -100, 90)


C = torch.tensor([0.5, -2.0, 3.0])[:, None, None]
CASES = {
    "add": (one("add", "x", "c"), lambda x: x + C),
    "argmax": (one("argmax", dim=1, keep=False), lambda x: x.argmax(1)),
    "argmax kept": (one("argmax", dim=3, keep=True), lambda x: x.argmax(3, keepdim=True)),
    "clamp": (one("clamp", low=-0.25, high=1.5), lambda x: x.clamp(-0.25, 1.5)),
    "clamp below": (one("clamp", low=0.0, high=None), F.relu),
    "concat": (one("concat", "x", "x", dim=2), lambda x: torch.cat([x, x], 2)),
    "div": (one("div", "c", "x"), lambda x: C / x),
    "exp": (one("exp"), torch.exp),
    "log": (one("log"), torch.log),
    "log_softmax": (one("log_softmax", dim=1), lambda x: F.log_softmax(x, 1)),
    "mean": (one("mean", dims=(2, 3), keep=False), lambda x: x.mean((2, 3))),
    "mul": (one("mul", "x", "x"), lambda x: x * x),
    "quantize": (one("quantize", **QUANTIZE), lambda x: quantized(x).to(torch.int8)),
    "reshape": (one("reshape", shape=(6, 10)), lambda x: x.reshape(-1, 6, 10)),
    "sigmoid": (one("sigmoid"), torch.sigmoid),
    "slice": (one("slice", dim=3, start=1, stop=5, step=2), lambda x: x[:, :, :, 1:5:2]),
    "softmax": (one("softmax", dim=1), lambda x: F.softmax(x, 1)),
    "sqrt": (one("sqrt"), torch.sqrt),
    "sub": (one("sub", "x", "c"), lambda x: x - C),
    "tanh": (one("tanh"), torch.tanh),
    "transpose": (one("transpose", order=(0, 2, 3, 1)), lambda x: x.permute(0, 2, 3, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_pytorch(name):
    operator, expected = CASES[name]
    x = 40 * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))  # wide enough for infinities
    made = graph(operator, constants=(column(),))
    found = made.run({"x": x.numpy()})["y"]
    wanted = expected(x).numpy()
    assert found.dtype == wanted.dtype and found.shape == wanted.shape == (2, *made.types["y"].shape)
    np.testing.assert_allclose(found, wanted, rtol=2e-6)


def test_codes_and_back():
    both = graph(one("quantize", **QUANTIZE), HostOperator("dequantize", ("y",), "z", {"scale": 0.1, "zero_point": -3}), outputs=("z", "x"))
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    found = both.run({"x": x.numpy()})
    assert list(found) == ["z", "x"] and found["z"].dtype == np.float32
    np.testing.assert_array_equal(found["z"], ((quantized(x) + 3) * 0.1).numpy())


def test_every_kind_is_tested_and_every_parameter_used():
    assert {operator.kind for operator, _ in CASES.values()} == set(KINDS) - {"dequantize"}
    assert {name for kind in KINDS.values() for name in kind.parameters} == set(PARAMETERS)


WRONG = [
    (one("gelu"), r"^y: operator must be one of add, argmax, .*, not 'gelu' \(what this release runs on the host\)$"),
    (one("softmax"), r"^y: softmax: parameters must be dim, not none \(what the host computes\)$"),
    (one("softmax", dim=1, beta=2), r"^y: softmax: parameters must be dim, not beta, dim \("),
    (one("softmax", dim=4), r"^y: softmax: dim must be in 1\.\.3, not 4 \(on the host; 0 is the batch\)$"),
    (one("softmax", dim="1"), r"^y: softmax: dim must be a whole number, not '1' \("),
    (one("softmax", dim=1 << 40), r"^y: softmax: dim must be a whole number, not 1099511627776 \("),
    (one("softmax", "z", dim=1), r"^y: softmax must read a tensor that is there before it, not 'z' \(on the host\)$"),
    (one("softmax", "c", dim=1), r"^y: softmax: input must be a tensor of the network, not a constant \("),
    (one("add", "x"), r"^y: add must read 2 tensors, not 1 \(on the host\)$"),
    (HostOperator("concat", (), "y", {"dim": 1}), r"^y: concat must read some tensors, not 0 \(on the host\)$"),
    (one("add", "c", "c"), r"^y: add: inputs must be tensors of one rank, and constants of no higher one, not \[3, 1, 1\], \[3, 1, 1\] \("),
    (one("clamp", low=None, high=None), r"^y: clamp: limits must be low, high or both, not none \("),
    (one("clamp", low=float("nan"), high=None), r"^y: clamp: low must be a number or null, not nan \("),
    (one("mean", dims=(2, 2), keep=True), r"^y: mean: dims must be different, and one at least, not \[2, 2\] \("),
    (one("reshape", shape=(7,)), r"^y: reshape: shape must be of 60 elements an image, not \[7\] \("),
    (one("reshape", shape=(-60, -1)), r"^y: reshape: shape must be whole numbers of at least 1, not \(-60, -1\) \("),
    (one("transpose", order=(1, 0, 2, 3)), r"^y: transpose: order must be 0 and then the dimensions 1\.\.3, not \[1, 0, 2, 3\] \("),
    (one("slice", dim=1, start=2, stop=9, step=1), r"^y: slice: start and stop must be ascending in 0\.\.3, not \(2, 9\) \("),
    (
        one("quantize", **QUANTIZE | {"largest": 300}),
        r"^y: quantize: smallest and largest must be ascending in -128\.\.127, not \(-1",
    ),
    (one("quantize", **QUANTIZE | {"dtype": "float64"}), r"^y: quantize: dtype must be one of int8, uint8, int16, int32, not 'float64' \("),
    (one("quantize", **QUANTIZE | {"scale": 0}), r"^y: quantize: scale must be a number above 0, not 0 \("),
    (one("dequantize", scale=1.0, zero_point=0), r"^y: dequantize: input must be whole numbers, not real numbers \("),
    (HostOperator("exp", ("x",), "x", {}), r"^tensors on the host must have different names, not 'x' twice$"),
    (HostOperator("exp", ("x",), "z", {}), r"^output must be an input or the result of an operator on the host, not 'y'$"),
]


@pytest.mark.parametrize(("operator", "message"), WRONG, ids=[message[1:28] for _, message in WRONG])
def test_wrong_operators(operator, message):
    with pytest.raises(HostError, match=message):
        graph(operator, constants=(column(),))


@pytest.mark.parametrize(
    ("constant", "message"),
    [
        (HostConstant("c", (2,), (1.0,)), r"^c must have 2 values, not 1 \(a constant on the host\)$"),
        (HostConstant("c", (0,), ()), r"^shape of c must be whole numbers of at least 1, not \[0\] \(a tensor on the host\)$"),
        (HostConstant("c", (), (1e39,)), r"^c must hold finite float32 numbers, not 1e\+39 \(a constant on the host\)$"),
        (HostConstant("c", (), (float("nan"),)), r"^c must hold finite float32 numbers, not nan \(a constant on the host\)$"),
        (HostConstant("c", (3,), (1.0, 2.0, 3.0)), r"^y: add: inputs must be of shapes that broadcast, not \[3, 4, 5\], \[3\] \("),
    ],
)
def test_wrong_constants(constant, message):
    with pytest.raises(HostError, match=message):
        graph(one("add", "x", "c"), constants=(constant,))


def ends() -> tuple[HostGraph, HostGraph]:
    head = graph(one("sub", "x", "c"), constants=(column((0.1, 1 / 3, 2e-9)),))
    tail = graph(one("quantize", **QUANTIZE), HostOperator("slice", ("x",), "z", {"dim": 1, "start": 0, "stop": 2, "step": 1}))
    return head, tail


def through(text: str) -> object:
    return ends_from_plain(json.loads(text))


def test_plain_values_bring_everything_back():
    text = json.dumps(ends_to_plain(*ends()))
    assert through(text) == ends()
    assert json.dumps(ends_to_plain(*through(text))) == text
    assert through(json.dumps(ends_to_plain(None, None))) == (None, None)


def places(plain, path=()):
    """Every place in nested dicts and lists."""
    if path:
        yield path
    for key in plain if isinstance(plain, dict) else range(len(plain)) if isinstance(plain, list) else ():
        yield from places(plain[key], (*path, key))


@pytest.mark.parametrize("value", [None, True, -1, 10**400, 1.5, float("inf"), "x", "a\nb", [], {}, [[]]], ids=lambda v: repr(v)[:8])
def test_whatever_a_description_holds_is_read_or_refused(value):
    text = json.dumps(ends_to_plain(*ends()))
    for *path, last in places(json.loads(text)):
        plain = json.loads(text)
        place = plain
        for key in path:
            place = place[key]
        place[last] = value
        try:
            head, tail = ends_from_plain(plain)
        except HostError as error:
            assert "\n" not in str(error)
            continue
        for made in (head, tail):
            if made is not None:
                made.run({entry.name: np.ones((2, *entry.shape), dtype=np.float32) for entry in made.inputs})


def test_versions():
    for wrong in ({"version": 2}, {}, None, 7):
        with pytest.raises(HostError, match=r"^version of the operators on the host must be 1, not .* \(use the release that wrote it\)$"):
            ends_from_plain(wrong)
