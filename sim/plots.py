"""The report's pictures, drawn with matplotlib: roofline, timeline, cycles by layer, lost lane-cycles."""

import io
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from tercel.hw.isa import Engine
from tercel.sim.lane_cycles import CAUSES, LaneCycles
from tercel.sim.profile import LayerProfile, Profile
from tercel.sw.program import Program

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 10.5
"""Inches; the page shows them at about 96 points an inch."""

LAYER_COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377")
"""Of the groups of layers in the timeline, in turn; distinct for colour-blind eyes too."""
BITS_COLOURS = {2: "#228833", 4: "#4477aa", 6: "#ccbb44", 8: "#aa3377"}
PART_COLOURS = {"compute": "#4477aa", "overhead": "#ccbb44", "load": "#ee6677", "store": "#aa3377", "latency": "#bbbbbb"}
USEFUL, LOST = "#228833", "#bb5566"
_GREY = "#666666"
_LABEL_PITCH = 0.027
"""Least distance of labels in the timeline, as a share of its width."""
_STYLE: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "svg.fonttype": "path",
    "svg.hashsalt": "tercel",
}


def roofline(profile: Profile) -> "Figure":
    """Layers by MACs a byte and MACs a cycle, under the roofs of the memory and of each width of weights that occurs."""
    layers = [layer for layer in profile.layers if layer.rate]
    rate = profile.config.memory_width * profile.memory_rate
    finite = [layer.intensity for layer in layers if isfinite(layer.intensity)]
    left, right = min([*finite, 1.0]) / 2, max([*finite, 10.0]) * 4
    roofs = {f"array, {bits}-bit": (profile.config.array_lanes * 2 / bits, BITS_COLOURS[bits]) for bits in _widths(layers)}
    if any(layer.engine == "depthwise" for layer in layers):
        roofs["depthwise engine"] = (profile.config.depthwise_lanes, _GREY)

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for name, (height, colour) in roofs.items():
            axes.plot([height / rate, right], [height, height], color=colour, linewidth=1.5)
            axes.annotate(
                f"{name}: {height:g}", (right, height), xytext=(-4, 3), textcoords="offset points", ha="right", color=colour, fontsize=9
            )
        top = max([height for height, _ in roofs.values()], default=rate * left)
        axes.plot([left, top / rate], [left * rate, top], color=_GREY, linewidth=1.5)
        axes.annotate(
            f"memory: {rate:g} bytes a cycle", (left, left * rate), xytext=(28, 4), textcoords="offset points", color=_GREY, fontsize=9
        )
        for layer in layers:
            axes.scatter(
                min(layer.intensity, right / 1.3),
                layer.rate,
                s=25 + 1200 * layer.share,
                marker="D" if layer.engine == "depthwise" else "o",
                color=_GREY if layer.engine == "depthwise" else BITS_COLOURS[layer.weight_bits],
                alpha=0.65,
                edgecolors="white",
                zorder=3,
            )
        axes.set(xscale="log", yscale="log", ylabel="MACs a cycle", title="Roofline")
        axes.set_xlabel("MACs a byte of memory traffic. Circle: array, diamond: depthwise engine; area: share of the cycles; number: layer")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlim(left, right)
        axes.set_ylim(top=top * 2.2)
        axes.grid(which="major", color="#e4e4e4", linewidth=0.6)
        figure.canvas.draw()  # places the axes, which the labels need
        numbers = {layer.name: number for number, layer in enumerate(profile.layers, start=1)}
        places = [(numbers[layer.name], min(layer.intensity, right / 1.3), layer.rate) for layer in layers]
        _number_points(axes, sorted(places, key=lambda place: -profile.layers[place[0] - 1].cycles))

    return figure(draw, height=5.2)


def timeline(program: Program, profile: Profile) -> "Figure":
    """When each engine worked, coloured by group of layers, from the cycle model."""
    owner = {index: mark for mark in program.marks for index in mark.indices()}
    tracks = [engine for engine in (Engine.LOAD, Engine.ARRAY, Engine.DEPTHWISE, Engine.STORE) if _exists(engine, profile)]

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for row, engine in enumerate(tracks):
            bars: dict[str, list[tuple[float, float]]] = {}
            for span in profile.predicted.spans:
                if span.engine is engine:
                    mark = owner.get(span.index)
                    colour = LAYER_COLOURS[mark.group % len(LAYER_COLOURS)] if mark else "#bbbbbb"
                    _append(bars.setdefault(colour, []), span.start, span.free, gap=profile.cycles / 2000)
            for colour, pieces in bars.items():
                axes.broken_barh(pieces, (row - 0.36, 0.72), facecolors=colour, linewidth=0, antialiased=False, rasterized=True)
        last = float("-inf")
        for middle, name in sorted(((begin + end) / 2, name) for begin, end, name in _groups(profile)):
            if (middle - last) / profile.cycles > _LABEL_PITCH:
                axes.text(middle, -0.6, name, ha="left", va="bottom", fontsize=8, color=_GREY, rotation=35)
                last = middle
        axes.set_yticks(range(len(tracks)), [engine.name.lower() for engine in tracks])
        axes.set_ylim(len(tracks) - 0.5, -0.55)
        axes.set_xlim(0, profile.cycles)
        axes.set_xlabel("cycles")
        axes.set_title("Timeline of the engines, one colour a group of layers (cycle model)", pad=66)
        axes.xaxis.set_major_formatter(_thousands)

    return figure(draw, height=4.3)


def layer_cycles(profile: Profile) -> "Figure":
    """Each layer's cycles: computing, the engine's own overhead, and waiting."""
    layers = profile.layers

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        bottom = [0.0] * len(layers)
        for part, colour in PART_COLOURS.items():
            values = [_part(layer, part) for layer in layers]
            if any(values):
                axes.bar(range(len(layers)), values, bottom=bottom, color=colour, width=0.8, label=part)
                bottom = [low + value for low, value in zip(bottom, values, strict=True)]
        axes.set_xticks(range(len(layers)), [layer.name for layer in layers], rotation=90, fontsize=8 if len(layers) <= 60 else 6)
        axes.set_xlim(-0.7, len(layers) - 0.3)
        axes.set(ylabel="cycles", title="Cycles by layer")
        axes.yaxis.set_major_formatter(_thousands)
        axes.legend(frameon=False, ncols=len(PART_COLOURS), loc="upper right")
        axes.margins(y=0.15)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)

    return figure(draw, height=5.0)


def lost_lane_cycles(accounts: Mapping[str, LaneCycles], *, source: str) -> "Figure":
    """For each engine where its lane-cycles went, in percent of all; ``source`` says whose counts they are."""
    rows = [(engine, sorted(account.lost.items(), key=lambda item: -item[1])) for engine, account in accounts.items()]
    heights = [len(lost) + 1 for _, lost in rows]

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(len(rows), 1, squeeze=False, gridspec_kw={"height_ratios": heights}, sharex=True)[:, 0]
        for axes, (engine, lost) in zip(panels, rows, strict=True):
            account = accounts[engine]
            names = ["useful", *(name.split(".")[1].replace("_", " ") for name, _ in lost)]
            shares = [100 * count / account.total for count in (account.useful, *(count for _, count in lost))]
            axes.barh(names, shares, color=[USEFUL, *[LOST] * len(lost)], height=0.7)
            meanings = ["", *(CAUSES.get(name, "") for name, _ in lost)]
            for place, (share, meaning) in enumerate(zip(shares, meanings, strict=True)):
                axes.text(share + 0.8, place, f"{share:.1f} %   {meaning}", va="center", fontsize=9)
            axes.invert_yaxis()
            axes.set_xlim(0, 150)
            axes.set_xticks(range(0, 101, 20))
            axes.spines["bottom"].set_bounds(0, 100)
            axes.set_title(f"{engine}: {_count(account.total)} lane-cycles ({source})")
            axes.tick_params(length=0)
        panels[-1].set_xlabel("percent of the engine's lane-cycles in the run")

    return figure(draw, height=0.9 * len(rows) + 0.28 * sum(heights))


def svg(figure: "Figure") -> str:
    """A picture as an SVG element for a page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def png(figure: "Figure") -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def figure(draw: Any, *, height: float) -> "Figure":
    """A picture in the report's style: ``draw`` is called with an empty figure ``height`` inches high."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        empty = Figure(figsize=(WIDTH, height), dpi=144, layout="constrained")
        draw(empty)
    return empty


def _widths(layers: Sequence[LayerProfile]) -> list[int]:
    return sorted({layer.weight_bits for layer in layers if layer.engine == "array"})


def _exists(engine: Engine, profile: Profile) -> bool:
    return engine is not Engine.DEPTHWISE or profile.config.depthwise


def _append(bars: list[tuple[float, float]], start: float, end: float, *, gap: float) -> None:
    """Add a bar, or lengthen the last one where no eye could see the gap between them."""
    if bars and start - (bars[-1][0] + bars[-1][1]) < gap:
        bars[-1] = (bars[-1][0], end - bars[-1][0])
    else:
        bars.append((start, end - start))


def _groups(profile: Profile) -> list[tuple[float, float, str]]:
    """Begin, end and name of each group's time."""
    found: dict[int, tuple[float, float, str]] = {}
    for layer in profile.layers:
        if layer.group >= 0:
            begin, end, name = found.get(layer.group, (layer.start, layer.end, layer.name))
            found[layer.group] = (min(begin, layer.start), max(end, layer.end), _common(name, layer.name))
    return list(found.values())


def _common(first: str, second: str) -> str:
    """The module path that two layers share."""
    shared = []
    for one, other in zip(first.split("."), second.split("."), strict=False):
        if one != other:
            break
        shared.append(one)
    return ".".join(shared) if len(shared) > 1 else first


def _part(layer: LayerProfile, part: str) -> float:
    """A part of a layer's cycles: what is neither waiting nor the engine's overhead is computing."""
    waits = sum(layer.waits.values())
    computing = layer.cycles - waits
    overhead = sum(count for name, count in layer.events.items() if name not in ("step", "emit"))
    # Where the array hides the depthwise engine, its cycles belong to another layer, and so does their share of the overhead.
    scaled = computing * overhead / layer.busy if layer.busy else 0.0
    return {"compute": computing - scaled, "overhead": scaled}.get(part, layer.waits.get(part, 0.0))


def _number_points(axes: Any, places: Sequence[tuple[int, float, float]]) -> None:
    """Numbers beside points, each where it covers no other number, or left out."""
    taken: list[tuple[float, float]] = []
    for number, x, y in places:
        across, up = axes.transData.transform((x, y))
        for right, above in ((16, 6), (-16, 6), (16, -10), (-16, -10), (0, 20), (0, -24)):
            if all(abs(across + right - other) > 22 or abs(up + above - higher) > 18 for other, higher in taken):
                taken.append((across + right, up + above))
                offset = (right * 0.5, above * 0.5)
                text = axes.annotate(f"{number}", (x, y), xytext=offset, textcoords="offset points", ha="center", fontsize=8, zorder=4)
                text.set_in_layout(False)
                break


def _thousands(value: float, _: object) -> str:
    return f"{value:,.0f}"


def _count(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.0f}"
