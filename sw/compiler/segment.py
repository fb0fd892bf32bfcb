"""Cuts the network into groups."""

from tercel.hw.config import Config
from tercel.sw.compiler.group import make_group
from tercel.sw.compiler.group_plan import GroupPlan, Shape, plan_group
from tercel.sw.graph.integer_graph import IntegerGraph, LayerNode, Node


def segment(graph: IntegerGraph, config: Config, wanted) -> list[GroupPlan | Node]:
    import os
    n=int(os.environ.get('GN','1')); st=[int(x) for x in os.environ.get('ST','8,32').split(',')]
    out=[]
    i=0
    nodes=graph.nodes
    while i<len(nodes):
        for size in range(n,0,-1):
            part=nodes[i:i+size]
            if not all(isinstance(x,LayerNode) for x in part): continue
            names={x.output for x in part}
            stored={t for t in names if t in wanted or any(t in y.inputs for y in nodes[i+size:])}
            g=make_group(tuple(part),graph.tensors,stored,config)
            if g is None: continue
            plan=None
            H=part[-1].spec.output[0]
            for s in sorted({min(H,x) for x in st}):
              for slack in (1,0):
                plan=plan_group(g,Shape(s,slack,False),config,from_top=len(out)%2==1)
                if plan: break
              if plan: break
            if plan: break
        else:
            plan=nodes[i]; size=1
        out.append(plan); i+=size
    return out
