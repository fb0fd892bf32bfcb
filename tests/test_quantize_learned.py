"""Learned rounding: better than the nearest codes, on the grid, resumed exactly."""

import json

import numpy
import pytest

torch = pytest.importorskip("torch")

from small_torch_networks import Network, calls, constants, outputs, pictures, uneven
from test_quantize_blocks import BasicBlocks, Dense, Reshapes, Separable, ready

from tercel.sim.cli import main
from tercel.sw import zoo
from tercel.sw.quantize import QuantizeError, quantize
from tercel.sw.quantize.block_run import advance
from tercel.sw.quantize.block_samples import BlockSamples
from tercel.sw.quantize.blocks import find_blocks
from tercel.sw.quantize.learned_rounding import learn_block
from tercel.sw.quantize.reconstruction import learn_rounding
from tercel.sw.quantize.rounding_variables import RoundingVariables, rectified_sigmoid
from tercel.sw.quantize.weight_scales import round_by_scheme

IMAGES, SIZE = 48, 32
STEPS = 80


def seeded(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return uneven(Network(), seed=seed)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network():
    return seeded()


def error(model, program, images):
    expected = torch.cat([model(image[None]) for image in images]).detach()
    return float((outputs(program, images) - expected).square().mean() / expected.square().mean())


def learned(model, **options):
    return quantize(model, calibration=pictures(IMAGES, SIZE), rounding="learned", **{"rounding_steps": STEPS, **options})


def weight_codes(program):
    return [constants(program, node.args[1]) for name in ("conv2d.default", "linear.default") for node in calls(program, name)]


@pytest.mark.parametrize(("scheme", "bits"), [("shift8", 3), ("per_channel", 4), ("ternary", None)])
def test_less_error_than_the_nearest_codes_on_other_images(scheme, bits):
    fresh, errors = pictures(16, SIZE, seed=5), {"learned": 0.0, "nearest": 0.0}
    for seed in range(3):
        model = seeded(seed)
        nearest = quantize(model, calibration=pictures(IMAGES, SIZE), scheme=scheme, bits=bits, rounding="nearest")
        errors["nearest"] += error(model, nearest, fresh)
        errors["learned"] += error(model, learned(model, scheme=scheme, bits=bits), fresh)
    assert errors["learned"] < 0.9 * errors["nearest"]


@pytest.mark.parametrize(("scheme", "bits", "limit"), [("shift8", 3, 3), ("per_channel", 4, 7), ("ternary", None, 1)])
def test_codes_and_scales_are_those_of_the_scheme(network, scheme, bits, limit):
    for codes, scales, _ in weight_codes(learned(network, scheme=scheme, bits=bits, rounding_steps=8)):
        assert codes.dtype == torch.int8 and int(codes.abs().max()) <= limit and codes.any()
        shifts = torch.log2(scales / scales.min())
        assert scheme == "per_channel" or torch.allclose(shifts, shifts.round(), atol=1e-5)


def prepared_block(bits):
    """A block of three layers, its inputs as they are in the float network and its outputs."""
    prepared = ready(seeded(), pictures(IMAGES, SIZE), bits=bits)
    blocks = find_blocks(prepared)
    values = {node: pictures(IMAGES, SIZE)[:, None] for node in prepared.graph.nodes if node.op == "placeholder"}
    for block in blocks[:2]:
        advance(prepared, block, values, real=True)
    return prepared, blocks[1], values


def test_what_is_learned_counts_only_if_held_out_images_gain():
    """Learning images whose targets are turned round drive every code away; held-out ones agree with the block as it is."""
    kept = {}
    for turned in (False, True):
        prepared, block, values = prepared_block(bits=8)
        (output,) = block.outputs
        real = dict(values)
        if turned:
            held_out = torch.arange(IMAGES) % 4 == 3
            real[output] = torch.where(held_out[:, None, None, None, None], values[output], -values[output])
        learn_block(prepared, block, real=real, quantized=values, steps=STEPS if turned else 1, seed=0, progress=lambda done: None)
        kept[turned] = [(layer.weight, layer.bias) for layer in block.layers]
    for (weight, bias), (start, start_bias) in zip(kept[True], kept[False], strict=True):
        assert (weight != start).float().mean() < 0.05 and torch.allclose(bias, start_bias, atol=1e-2 * float(start_bias.abs().max()))


def test_without_held_out_images_the_last_rounding_counts():
    biases = []
    for steps in (1, 20):
        prepared, block, values = prepared_block(bits=4)
        few = {node: value[:3] for node, value in values.items()}
        learn_block(prepared, block, real=few, quantized=few, steps=steps, seed=0, progress=lambda done: None)
        biases.append([layer.bias for layer in block.layers])
    assert not any(torch.equal(first, last) for first, last in zip(*biases, strict=True))


@pytest.mark.parametrize("make", [Separable, BasicBlocks, Dense, Reshapes])
def test_networks_of_other_shapes(make):
    model, images = uneven(make()), pictures(8)
    program = quantize(model, calibration=images, bits=4, rounding="learned", rounding_steps=10)
    assert error(model, program, images) < 0.5


def test_weights_are_codes_next_to_each_other_and_the_bias_fits():
    prepared = ready(uneven(Network()), pictures(8), bits=4)
    block = find_blocks(prepared)[1]
    for layer in block.layers:
        weight = layer.weight
        layer.replace_weight(round_by_scheme(layer))
        given = layer.weight
        variables = RoundingVariables(layer, weight)
        with torch.no_grad():
            variables.variables.normal_()
        variables.commit()
        scales = layer.weight_observer.calculate_qparams()[0].reshape(-1, 1, 1, 1)
        codes = layer.weight / scales
        assert torch.allclose(codes, codes.round(), atol=1e-4) and codes.abs().max() <= 7.001
        assert (codes - given / scales).abs().max() <= 1.001
        assert not torch.equal(layer.weight, given)


def test_variables_start_at_the_given_code():
    prepared = ready(uneven(Network()), pictures(8), bits=4)
    layer = find_blocks(prepared)[0].layers[0]
    weight = layer.weight
    layer.replace_weight(round_by_scheme(layer))
    given = layer.weight
    variables = RoundingVariables(layer, weight)
    variables.commit()
    assert torch.allclose(layer.weight, given, rtol=1e-6)


def test_the_rectified_sigmoid_reaches_both_ends():
    h = rectified_sigmoid(torch.tensor([-9.0, 0.0, 9.0]))
    assert h.tolist() == [0.0, 0.5, 1.0]


def test_windows_are_cut_at_the_same_place_of_inputs_and_targets():
    """A block of a pointwise layer: each window's target is the float layer of its window."""
    prepared = ready(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2, stride=2)), pictures(4, size=64))
    block = find_blocks(prepared)[0]
    images = pictures(4, size=64)
    values = {node: images[:, None] for node in block.inputs}
    with torch.no_grad():
        targets = prepared(images[:1])
    real = {**values, block.outputs[0]: torch.zeros(4, 1, *targets.shape[1:])}
    samples = BlockSamples(prepared, block, real=real, quantized=values, seed=0)
    inputs, made = samples.draw()
    assert samples.pixels == 14 * 14 and samples.images == 4
    assert next(iter(inputs.values())).shape == (4, 1, 3, 28, 28) and made[0].shape == (4, 1, 4, 14, 14)


def test_the_same_call_gives_the_same_codes_interrupted_or_not(network, tmp_path):
    class Interrupted(Exception):
        pass

    def interrupt(done, total, what):
        if what == "learn rounding" and len(list(tmp_path.glob("block-*"))) == 2:
            raise Interrupted

    whole = learned(network, bits=4, rounding_steps=20)
    with pytest.raises(Interrupted):
        learned(network, bits=4, rounding_steps=20, checkpoint=tmp_path, progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["block-000.safetensors", "block-001.safetensors", "run.json"]
    resumed = learned(network, bits=4, rounding_steps=20, checkpoint=tmp_path)
    for one, two in zip(weight_codes(whole), weight_codes(resumed), strict=True):
        assert torch.equal(one[0], two[0])
    assert torch.equal(outputs(whole, pictures(4, SIZE)), outputs(resumed, pictures(4, SIZE)))
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    learned(network, bits=4, rounding_steps=20, checkpoint=str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == finished


def test_progress_ends_at_the_whole(network):
    seen = []
    learned(network, bits=4, rounding_steps=3, progress=lambda *step: seen.append(step))
    steps = [(done, total) for done, total, what in seen if what == "learn rounding"]
    assert steps == sorted(steps) and steps[-1][0] == steps[-1][1]
    assert seen[-1][2] == "convert" and any(what == "correct biases" for _, _, what in seen)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    prepared = ready(seeded(), pictures(4))
    learn_rounding(prepared, list(pictures(4)[:, None]), steps=1, checkpoint=folder, progress=lambda done, total: None)
    return folder


def again(folder, *, bits=4, images=4, steps=1, seed=0):
    prepared = ready(seeded(seed), pictures(4), bits=bits)
    kept = list(pictures(images)[:, None])
    learn_rounding(prepared, kept, steps=steps, checkpoint=folder, progress=lambda done, total: None)


@pytest.mark.parametrize(
    ("other", "differ"),
    [
        ({"bits": 3}, "bits, weight scales"),
        ({"images": 3}, "calibration"),
        ({"steps": 2}, "rounding_steps"),
        ({"seed": 1}, "model, weight scales, activation scales"),
    ],
)
def test_a_checkpoint_of_another_run(finished, other, differ):
    with pytest.raises(QuantizeError, match=rf"^checkpoint {finished} is of another run: {differ} differ \(give another folder, or delete"):
        again(finished, **other)


def test_scales_that_other_threads_found_are_the_same_run(finished, tmp_path):
    """Sums in another order end in other last bits."""
    description = json.loads((finished / "run.json").read_text())
    for path in finished.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for factor in (1 + 1e-6, 1.1):
        scales = [scale * factor for scale in description["activation scales"]]
        (tmp_path / "run.json").write_text(json.dumps({**description, "activation scales": scales}))
        if factor < 1.1:
            again(tmp_path)
        else:
            with pytest.raises(QuantizeError, match="is of another run: activation scales differ"):
                again(tmp_path)


def test_damaged_checkpoints(finished, tmp_path):
    block = tmp_path / "block-000.safetensors"
    (tmp_path / "run.json").write_bytes((finished / "run.json").read_bytes())
    block.write_bytes((finished / block.name).read_bytes()[:100])
    with pytest.raises(QuantizeError, match=rf"^checkpoint {block} is damaged: .* \(delete the file, its block is learned again\)$"):
        again(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(QuantizeError, match=rf"^checkpoint {tmp_path} is damaged: run.json is not JSON \(delete the folder\)$"):
        again(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps([]))
    with pytest.raises(
        QuantizeError, match=r"is of another run: model, calibration, scheme, bits, weight scales, activation scales, rounding_steps differ"
    ):
        again(tmp_path)


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(QuantizeError, match=r"must be a new folder or hold learned rounding, but holds other files \(give another folder"):
        again(tmp_path)
    with pytest.raises(QuantizeError, match=r"^checkpoint .*photo.jpg cannot be read and written: File exists \(give another folder\)$"):
        again(tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounding": "best"}, r"^rounding must be one of nearest, compensated, learned, not 'best'$"),
        ({"rounding": "learned", "rounding_steps": 0}, r"^rounding_steps must be a whole number of 1 or more, not 0 \(a few hundred do\)$"),
        ({"checkpoint": "x"}, r"^checkpoint must be left out with rounding 'compensated', which is soon done \(or choose 'learned'\)$"),
    ],
)
def test_wrong_arguments(network, options, message):
    with pytest.raises(QuantizeError, match=message):
        quantize(network, calibration=pictures(2), **options)


def test_on_the_command_line(tmp_path, capsys):
    size = zoo.build("digits").image_format.size
    numpy.save(tmp_path / "images.npy", pictures(4, size)[:, :1].numpy())
    arguments = ["quantize", "digits", "--calibrate", str(tmp_path / "images.npy"), "--bits", "4", "-o", str(tmp_path / "digits.tq")]
    learning = ["--rounding", "learned", "--rounding-steps", "2", "--checkpoint", str(tmp_path / "run")]
    assert main([*arguments, *learning]) == 0
    assert (tmp_path / "digits.tq").is_file() and (tmp_path / "run" / "run.json").is_file()
    assert main([*arguments, *learning, "--scheme", "per_channel"]) == 2
    assert "run is of another run: model, scheme, weight scales differ (give another folder, or delete it)" in capsys.readouterr().err
    assert main([*arguments, "--rounding", "best"]) == 2
    assert "rounding must be one of nearest, compensated, learned, not 'best'" in capsys.readouterr().err
