"""MaskGAE (paths): as maskgae_edge, but the edges that are hidden are those of random walks.

Paper    as maskgae_edge; section 4.2, "path-wise masking".
Keeps    walks of 3 steps from random nodes, whose edges are hidden together: a path can't be told by its rest.
Differs  as maskgae_edge; walks go on until 70% of the edges are hidden, exactly, where the authors start one from 70%
         of the nodes (or edges), whatever that hides.
Tiny     as maskgae_edge.
Command  structmae pretrain --data cora --recipe maskgae_path; for link prediction --set data.edges=train, then
         structmae evaluate RUN --task link_prediction
"""

from dataclasses import replace

from structmae.recipes.maskgae_edge import RECIPE as EDGE

RECIPE = replace(
    EDGE,
    name="maskgae_path",
    summary="hide the edges of random walks, tell them from pairs that are none, and say how many each node lost",
    mask=replace(EDGE.mask, strategy="walk", length=3),
)
