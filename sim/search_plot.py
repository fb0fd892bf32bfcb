"""The picture of a search: accuracy, or error where nothing was evaluated, against cycles and against bytes of weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tercel.sim.plots import figure
from tercel.sw.search import Candidate, SearchResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LINE, _CHOSEN, _GREY = "#4477aa", "#ee6677", "#666666"


def front_figure(result: SearchResult) -> "Figure":
    """Each point of the front, labelled with the mean width of its layers' weights; the chosen one stands out."""
    measured = all(candidate.accuracy is not None for candidate in result.front)

    def height(candidate: Candidate) -> float:
        return 100 * candidate.accuracy if measured and candidate.accuracy is not None else candidate.predicted_error

    def draw(drawn: "Figure") -> None:
        panels = drawn.subplots(1, 2, sharey=True)
        for axes, attribute, label in zip(panels, ("cycles", "weight_bytes"), ("cycles an image", "bytes of weights"), strict=True):
            _panel(axes, [(getattr(candidate, attribute), height(candidate)) for candidate in result.front])
            for candidate in result.front:
                if candidate is not result.chosen and _beside(candidate, result.chosen, result.front):
                    continue  # its label would cover the chosen one's
                mean = sum(candidate.bits.values()) / len(candidate.bits)
                axes.annotate(
                    f"{mean:.1f}",
                    (getattr(candidate, attribute), height(candidate)),
                    xytext=(0, -13 if measured else 8),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=_GREY,
                )
            if result.chosen is not None:
                axes.scatter(getattr(result.chosen, attribute), height(result.chosen), s=90, color=_CHOSEN, zorder=4, label="chosen")
                axes.legend(frameon=False)
            axes.set_xlabel(label)
            axes.locator_params(axis="x", nbins=5)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.margins(x=0.08, y=0.12)
        panels[0].set_ylabel("accuracy, %" if measured else "noise to signal in the outputs (predicted)")
        if not measured:
            panels[0].set_yscale("log")
        panels[0].set_title(f"Mixed precision on {result.config}; number: mean bits of a layer")

    return figure(draw, height=4.2)


def _beside(candidate: Candidate, chosen: Candidate | None, front: Sequence[Candidate]) -> bool:
    """Whether a point lies within a twentieth of the picture of the chosen one."""
    cycles = [point.cycles for point in front]
    return chosen is not None and abs(candidate.cycles - chosen.cycles) < (max(cycles) - min(cycles)) / 20


def _panel(axes: Any, points: list[tuple[float, float]]) -> None:
    axes.plot(*zip(*sorted(points), strict=True), color=_LINE, marker="o", linewidth=1.5)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
