"""The cell form of the late multiplexer is the plain form, proved by SAT for every input."""

from amaranth.back import verilog
from test_wide_mux import prove

from tercel.hw.late_mux import LateMux
from tercel.hw.mux_add import Ecp5


def test_cells_equal_expression(tmp_path):
    """Yosys proves both forms equal; a changed LUT is found."""
    plain = verilog.convert(LateMux(2), name="plain", emit_src=False)
    cells = verilog.convert(LateMux(2), name="cells", platform=Ecp5(), emit_src=False)
    assert "LUT4" in cells and "LUT4" not in plain
    assert prove(plain + cells, tmp_path)
    wrong = cells.replace("16'hcaca", "16'hcacb")
    assert wrong != cells and not prove(plain + wrong, tmp_path)
