"""Timelines for Perfetto and Chrome: one track an engine, one slice an instruction."""

from typing import Any

from tercel.hw.isa import Engine
from tercel.sw.estimate import Estimate
from tercel.sw.program import Program


def trace_events(program: Program, estimate: Estimate) -> dict[str, Any]:
    """The estimated timeline as a Chrome trace object; a microsecond stands for a cycle. Slices are called after their layer."""
    instructions = program.instructions()
    layers = {index: mark.name for mark in program.marks for index in mark.indices()}
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 0, "tid": int(engine), "name": "thread_name", "args": {"name": engine.name.lower()}} for engine in Engine
    ]
    for span in estimate.spans:
        opcode, values = instructions[span.index]
        shown = {name: value for name, value in values.items() if value and name != "opcode"}
        events.append(
            {
                "ph": "X",
                "pid": 0,
                "tid": int(span.engine),
                "ts": span.start,
                "dur": max(span.free - span.start, 1),
                "name": f"{layers.get(span.index, 'no layer')} {opcode.name.lower()}",
                "args": {"instruction": span.index} | shown | {"landed": span.landed},
            }
        )
    return {"traceEvents": events, "otherData": {"config": program.config.name, "source": "cycle model"}}
