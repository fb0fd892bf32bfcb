"""ECP5 carry cells as Lattice describes them, for tests of edited netlists."""

PINS = [letter + half for half in "01" for letter in "ABCD"]


def carry_cell(cell, values):
    """(S0, S1, COUT) of a CCU2C as Lattice describes it; ``values`` of its nets, constants are strings."""

    def value(port):
        (bit,) = cell["connections"][port]
        return values["floating"] if bit == "x" else int(bit) if isinstance(bit, str) else values[bit]

    carry = value("CIN")
    sums = []
    for half in "01":
        a, b, c, d = (value(letter + half) for letter in "ABCD")
        contents = cell["parameters"][f"INIT{half}"][::-1]
        propagate, generate = int(contents[a + 2 * b + 4 * c + 8 * d]), int(contents[a + 2 * b])
        inject = cell["parameters"][f"INJECT1_{half}"] == "YES"
        sums.append(propagate ^ (0 if inject else carry))
        carry = carry if propagate else (0 if inject else generate)
    return (*sums, carry)
