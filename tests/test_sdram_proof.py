"""No beat is lost, doubled or put out of order in the SDRAM controller's queue, whatever its three sides do in the first cycles."""

from amaranth.back import rtlil
from amaranth.hdl import Assert, Module, Signal
from amaranth.lib.wiring import Component, In

from tercel.hw.sdram import queue as queue_module
from tercel.hw.sdram.beat import BeatGeometry
from tercel.hw.sdram.chips import EM638325
from tercel.sim.toolchain import find_tool, run_tool

DEPTH = 4
STEPS = 10
_SCRIPT = (
    "read_rtlil proof.il; hierarchy -top top; proc; flatten; memory_map; opt -full; async2sync; dffunmap; opt; "
    f"sat -prove-asserts -set-at 1 rst 1 -set-init-def -set-def-inputs -seq 1 -maxsteps {STEPS} -tempinduct-baseonly -verify"
)


class Proof(Component):
    """Beats are numbered as they come; a location must be the next one to open, a transfer the next one to go. All inputs are free."""

    give: In(1)
    open_next: In(1)
    take: In(1)

    def __init__(self, *, broken: bool):
        self._broken = broken
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = queue_module.BeatQueue(BeatGeometry(chip=EM638325, memory_width=1, addr_width=32))
        came, opened, went = (Signal(4, name=name) for name in ("came", "opened", "went"))
        location, transfer = queue.location, queue.transfer
        m.d.comb += [
            queue.i.valid.eq(self.give),
            queue.i.p.data.eq(came),
            queue.i.p.row.eq(came),
            location.ready.eq(self.open_next),
            queue.opened.eq(self.open_next & (location.valid | self._broken)),
            transfer.ready.eq(self.take),
        ]
        m.d.sync += [
            came.eq(came + (queue.i.valid & queue.i.ready)),
            opened.eq(opened + queue.opened),
            went.eq(went + (transfer.valid & transfer.ready)),
        ]
        m.d.comb += [
            Assert(~location.valid | (location.p.row[:4] == opened)),
            Assert(~transfer.valid | (transfer.p.data[:4] == went)),
            Assert((came - went)[:4] <= DEPTH + 1),
            Assert((opened - went)[:4] <= DEPTH + 1),
        ]
        return m


def prove(folder, *, broken):
    (folder / "proof.il").write_text(rtlil.convert(Proof(broken=broken), name="top", emit_src=False))
    return run_tool(find_tool("yosys"), ["-p", _SCRIPT.replace(" -verify", "")], folder=folder, log=folder / "yosys.log")


def test_the_queue_keeps_every_beat(tmp_path, monkeypatch):
    monkeypatch.setattr(queue_module, "DEPTH", DEPTH)
    assert f"proved base case for {STEPS} steps: SUCCESS" in prove(tmp_path, broken=False)


def test_the_proof_notices_a_broken_queue(tmp_path, monkeypatch):
    """One that opens beats that are not there."""
    monkeypatch.setattr(queue_module, "DEPTH", DEPTH)
    assert "SUCCESS" not in prove(tmp_path, broken=True)
