"""structguided: GraphMAE that hides easy nodes first and important ones later, by their PageRank.

Paper    the idea of structure-guided masking, as in C. Liu et al., Where to mask: structure-guided masking for graph
         masked autoencoders, IJCAI 2024 (published as StructMAE; this toolkit is not that method).
Keeps    nodes are scored by PageRank, and what is hidden moves over the epochs from low scores to high ones.
Differs  the chance of a node to be hidden grows with a power of its score, which goes from -1 to 1; all else is
         GraphMAE's as it is here.
Score    benchmarks/README.md: on Cora and PubMed behind graphmae, on CiteSeer no different. The powers are first
         guesses, which nothing has chosen
Command  structmae pretrain --data cora --recipe structguided
"""

from dataclasses import replace

from structmae.recipes.graphmae import RECIPE as GRAPHMAE

RECIPE = replace(
    GRAPHMAE,
    name="structguided",
    summary="graphmae that hides easy nodes first and important ones later, by their PageRank",
    paper="after Liu et al., Where to mask: structure-guided masking for graph masked autoencoders, IJCAI 2024",
    mask=replace(
        GRAPHMAE.mask, strategy="weighted", weights="pagerank", curriculum="linear", power_first=-1.0, power=1.0,
        ratio_first=0.5,
    ),
)  # fmt: skip
