"""Where two executions part, in codes and in floats."""

import json

import numpy as np
import pytest
from small_networks import two_layers

from tercel.sim.compare import compare_codes, compare_floats, sqnr

SHAPE = (2, 5, 4, 8)


def tensors(seed=0):
    random = np.random.default_rng(seed)
    return {name: random.integers(0, 256, SHAPE) for name in ("x", "a", "y")}


def compared(first, second, pixels=7):
    return compare_codes(two_layers(), first, second, names=("golden", "verilator"), pixels=pixels)


def test_equal_executions():
    found = compared(tensors(), tensors())
    assert found.equal and found.mismatch is None
    assert [tensor.layer for tensor in found.tensors] == ["input", "first", "second"]
    assert found.describe() == "golden and verilator are equal: 960 codes in 3 tensors"
    assert json.loads(json.dumps(found.as_json()))["equal"] is True


def test_names_the_first_layer_tile_pixel_and_channel():
    other = tensors()
    other["y"][:] = 0
    place = (1, 3, 2, 5)
    value = int(other["a"][place])
    other["a"][place] = 255 - value
    other["a"][1, 4, 0, 0] ^= 1
    found = compared(tensors(), other)
    mismatch = found.mismatch
    assert (mismatch.layer, mismatch.tensor, mismatch.image) == ("first", "a", 1)
    assert (mismatch.row, mismatch.column, mismatch.channel, mismatch.pixel, mismatch.tile) == (3, 2, 5, 14, 2)
    assert (mismatch.first, mismatch.second) == (value, 255 - value)
    assert [tensor.differing for tensor in found.tensors[:2]] == [0, 2] and found.tensors[2].differing > 100
    assert found.describe() == (
        "golden and verilator differ first in layer first, tile 2, pixel 14 (row 3, column 2), channel 5, image 1: "
        f"{value} on golden, {255 - value} on verilator; 2 of 320 codes of the layer differ"
    )
    assert found.as_json()["mismatch"]["channel"] == 5


def test_compares_what_both_have():
    first, second = tensors(), {"y": tensors()["y"]}
    assert [tensor.tensor for tensor in compared(first, second).tensors] == ["y"]
    with pytest.raises(ValueError, match=r"^the executions must share a tensor, not x and none$"):
        compared({"x": first["x"]}, {})
    with pytest.raises(ValueError, match=r"^y must have one shape, not \[2, 5, 4, 8\] on golden and \[1, 5, 4, 8\] on verilator$"):
        compared(first, {"y": first["y"][:1]})


def test_images_without_a_batch():
    one = {name: codes[0] for name, codes in tensors().items()}
    assert compared(one, one).equal


def test_floats_by_signal_to_noise_ratio():
    signal = {name: values.astype(float) for name, values in tensors().items()}
    other = {"a": signal["a"], "y": signal["y"] * 1.01}
    found = compare_floats(two_layers(), signal, other, names=("float", "reference"))
    assert [tensor.layer for tensor in found.tensors] == ["first", "second"]
    assert found.tensors[0].sqnr == float("inf")
    assert found.tensors[1].sqnr == pytest.approx(40)
    assert found.tensors[1].largest == pytest.approx(0.01 * signal["y"].max())
    assert found.agreement == 1
    assert json.loads(json.dumps(found.as_json()))["tensors"][0]["sqnr"] is None


def test_ratio_against_its_definition():
    signal, noise = np.array([3.0, 4.0]), np.array([0.3, -0.4])
    assert sqnr(signal, signal + noise) == pytest.approx(20)
    assert sqnr(np.zeros(2), noise) == float("-inf")
