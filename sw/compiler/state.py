"""What the passes pass on."""

from dataclasses import dataclass, field

from tercel.hw.config import Config
from tercel.sw.compiler.group_plan import GroupPlan
from tercel.sw.compiler.trace import Trace
from tercel.sw.emitter import Instruction
from tercel.sw.graph.integer_graph import IntegerGraph, Node
from tercel.sw.memory_image import MemoryImage
from tercel.sw.program import Port, Program


@dataclass
class Compilation:
    """A network on its way to a program. Each pass fills in what the ones after it read.

    Attributes
    ----------
    source
        The network as it was given.
    config, memory_latency
        The machine, and cycles from a read request to its first answer.
    wanted
        Tensors that are outputs of the program.
    graph
        The network as it is computed: the same nodes and tensors, some in another form.
    folds
        By an input's name, how many of its pixels make one column.
    groups
        All nodes in groups, in order; a node alone is one that runs by itself, cut into bands, through external memory.
    image, ports
        External memory and the tensors in it.
    views
        Tensors that are stored as a part of a concatenation only: its output, and the first of its channel groups that they are.
    trace
        Operations in the order in which they would run one at a time.
    order
        Indices of the operations in the order of the instruction stream.
    instructions
        The stream, with tokens.
    program
        The result.
    """

    source: IntegerGraph
    config: Config
    memory_latency: int
    wanted: tuple[str, ...]
    graph: IntegerGraph
    folds: dict[str, int] = field(default_factory=dict)
    groups: list[GroupPlan | Node] = field(default_factory=list)
    image: MemoryImage = field(init=False)
    ports: dict[str, Port] = field(default_factory=dict)
    views: dict[str, tuple[str, int]] = field(default_factory=dict)
    trace: Trace = field(default_factory=Trace)
    order: list[int] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    program: Program | None = None

    def __post_init__(self) -> None:
        self.image = MemoryImage(self.config)

    def group_nodes(self) -> list[tuple[Node, ...]]:
        """The nodes of each group."""
        return [plan.group.layers if isinstance(plan, GroupPlan) else (plan,) for plan in self.groups]
