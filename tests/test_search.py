"""Mixed precision: the way down, sensitivities, budgets, and the picture."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_torch_networks import Network, pictures, uneven

from tercel.hw.config import SMALL
from tercel.sim.cli import main
from tercel.sim.plots import png
from tercel.sim.quantize_cli import parse_bits
from tercel.sim.search_plot import front_figure
from tercel.sw.search import SearchError, search
from tercel.sw.search.cost import module_of
from tercel.sw.search.front import Choice, descend, spread, total_error, useful_steps

torch = pytest.importorskip("torch")

layer_choices = st.tuples(st.floats(0, 10), st.floats(0, 10), st.floats(0, 10), st.integers(1, 9)).map(
    lambda drawn: {
        8: Choice(error=0.0, cost=4.0 * drawn[3]),
        6: Choice(error=drawn[0], cost=3.0 * drawn[3]),
        4: Choice(error=drawn[0] + drawn[1], cost=2.0 * drawn[3]),
        2: Choice(error=drawn[0] + drawn[1] + drawn[2], cost=1.0 * drawn[3]),
    }
)


def cost(choices, widths):
    return sum(choices[layer][width].cost for layer, width in widths.items())


@settings(max_examples=60, deadline=None)
@given(st.lists(layer_choices, min_size=1, max_size=4))
def test_no_assignment_lies_below_the_way_down(layers):
    choices = {f"layer{number}": layer for number, layer in enumerate(layers)}
    path = [(cost(choices, widths), total_error(choices, widths)) for widths in descend(choices)]
    assert path[0] == (sum(layer[8].cost for layer in layers), 0.0)
    assert path[-1][0] == pytest.approx(sum(layer[2].cost for layer in layers))
    for widths in itertools.product((8, 6, 4, 2), repeat=len(layers)):
        assignment = dict(zip(choices, widths, strict=True))
        here, error = cost(choices, assignment), total_error(choices, assignment)
        for (more, low), (less, high) in itertools.pairwise(path):
            if less <= here <= more:
                assert error >= low + (high - low) * (more - here) / (more - less) - 1e-6


def test_steps_that_save_nothing_are_not_taken():
    same = {8: Choice(error=0.0, cost=5.0), 2: Choice(error=0.0, cost=5.0)}
    cheaper = {8: Choice(error=0.0, cost=5.0), 2: Choice(error=1.0, cost=2.0)}
    assert descend({"depthwise": same, "pointwise": cheaper}) == [{"depthwise": 8, "pointwise": 8}, {"depthwise": 8, "pointwise": 2}]


def test_points_are_spread_from_end_to_end():
    assert spread(3, points=8) == [0, 1, 2]
    assert spread(100, points=4) == [0, 33, 66, 99]
    assert spread(100, points=1) == [0]


def test_the_front_ends_where_noise_passes_the_signal():
    choices = {f"layer{number}": {8: Choice(error=0.0, cost=2.0), 2: Choice(error=0.4, cost=1.0)} for number in range(5)}
    path = descend(choices)
    assert len(path) == 6
    assert useful_steps(choices, path) == 4  # 0, 0.4, 0.8 and 1.2
    assert useful_steps(choices, path[:2]) == 2


def test_a_second_call_of_a_module_counts_as_that_module():
    assert module_of("stem.0", {"stem.0": 1}) == "stem.0"
    assert module_of("stem.0.1", {"stem.0": 1}) == "stem.0"
    assert module_of("stem.0.pool", {"stem.0": 1}) is None


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return uneven(Network())


@pytest.fixture(scope="module")
def found(model):
    seen = []
    result = search(
        model,
        calibration=pictures(8),
        config=SMALL,
        widths=(2, 8),
        max_weight_bytes=3500,
        points=2,
        images=4,
        evaluate=lambda graph: 1.0 / graph.macs,
        progress=lambda done, whole, what: seen.append((done, whole, what)),
    )
    return result, seen


def test_narrow_weights_leave_more_error_and_take_less_room(found):
    result, seen = found
    first, *_, last = result.front
    assert set(first.bits.values()) == {8}
    assert first.predicted_error < last.predicted_error
    assert first.weight_bytes > last.weight_bytes
    assert all(errors[2] > errors[8] > 0 for errors in result.sensitivities.values())
    assert result.measure == "weight_bytes"
    assert (len(result.front), len(result.front), "points of the front") in seen


def test_the_first_point_within_the_budget_is_chosen(found):
    result, _ = found
    assert result.chosen is not None
    assert result.chosen.weight_bytes <= 3500
    assert result.chosen.accuracy == result.front[0].accuracy  # the same network at every width
    larger = [candidate for candidate in result.front if candidate.predicted_error < result.chosen.predicted_error]
    assert larger
    assert all(candidate.weight_bytes > 3500 for candidate in larger)


def test_depthwise_layers_stay_at_the_width_that_costs_them_nothing(found):
    result, _ = found
    assert {width for candidate in result.front for layer, width in candidate.bits.items() if "depthwise" in layer} == {8}


def test_the_picture_shows_both_costs(found):
    result, _ = found
    figure = front_figure(result)
    assert [axes.get_xlabel() for axes in figure.axes] == ["cycles an image", "bytes of weights"]
    assert figure.axes[0].get_ylabel() == "accuracy, %"
    assert png(figure).startswith(b"\x89PNG")


def test_a_budget_below_the_narrowest_weights_says_what_they_take(model):
    with pytest.raises(SearchError, match=r"budget must be at least \d+ cycles and \d+ bytes of weights, not 10 cycles .* 2 bits .* small"):
        search(model, calibration=pictures(4), config=SMALL, widths=(2,), max_cycles=10, images=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (1, 8)}, r"widths must be whole numbers in 2..8 on config small, not \[1, 8\]"),
        ({"widths": ()}, "widths must be whole numbers in 2..8"),
        ({"points": 0}, "points must be at least 1, not 0"),
        ({"images": 1}, "images must be at least 2, not 1"),
        ({"max_cycles": 0}, "max_cycles must be at least 1, not 0"),
    ],
)
def test_arguments_out_of_range(model, arguments, message):
    with pytest.raises(SearchError, match=message):
        search(model, calibration=pictures(2), config=SMALL, **arguments)


def test_command_line(tmp_path, capsys):
    import numpy as np

    from tercel.sw.zoo.digits_data import digits_part

    np.save(tmp_path / "images.npy", digits_part("calibration").normalized()[:8])
    arguments = ["search", "digits", "--calibrate", str(tmp_path / "images.npy"), "--config", "small", "--points", "1", "--images", "2"]
    assert main([*arguments, "-o", str(tmp_path / "bits.json")]) == 2
    assert "cycles or weight_bytes must be given with output" in capsys.readouterr().err
    files = ["-o", str(tmp_path / "bits.json"), "--picture", str(tmp_path / "front.png")]
    assert main([*arguments, "--weight-bytes", "30000", "--json", *files]) == 0
    printed = json.loads(capsys.readouterr().out)
    bits = json.loads((tmp_path / "bits.json").read_text())
    assert printed["chosen"]["bits"] == bits
    assert parse_bits([str(tmp_path / "bits.json")]) == bits
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("text", "message"), [("[1]", "bits must be a JSON object of layers"), ("{", "bits must be a JSON file, but")])
def test_damaged_files_of_widths(tmp_path, text, message):
    path = tmp_path / "bits.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        parse_bits([str(path)])
