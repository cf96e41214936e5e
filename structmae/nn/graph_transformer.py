"""The graph transformer: attention over the nodes of each graph, which are told where in it they are."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from structmae.nn.gnn import ACTIVATIONS
from structmae.nn.transformer import FULL, Pattern, transformer
from structmae.recipe import EncoderOptions
from structmae.tokens import Relation

DEGREES = 64  # degrees that have a vector of their own, from 0; larger ones share the last
PROFILE = 16  # even functions of an eigenvector
DENSE = 256  # nodes of a component up to which its matrices are dense
BLOCK = 1 << 19  # entries of a matrix, or of a stack of them: 4 MB, which a cache holds

Floats = NDArray[np.float64]
_PLACES: WeakKeyDictionary[Relation, dict[tuple[int, int], Tensor]] = WeakKeyDictionary()


class GraphTransformer(nn.Module):
    """Features and structure of nodes to latents: a transformer whose inputs say where in its graph a node is (Dwivedi
    and Bresson, 2021).

    The input is a normalised linear map of the features; added to it are one of the return rates (Dwivedi et al., ICLR
    2022), one of even functions of the Laplacian's eigenvectors (Lim et al., SignNet, 2022: phi(v) + phi(-v), the same
    bits for either sign) and a vector for the degree (Ying et al., Graphormer, NeurIPS 2021). Where eigenvalues are
    equal more than a sign is open, and embeddings may depend on the order of the nodes.
    """

    def __init__(self, width_in: int, options: EncoderOptions):
        super().__init__()
        width = options.hidden
        self.walks, self.laplacian, self.attention = options.walks, options.laplacian, options.attention
        self.features = nn.Linear(width_in, width, bias=False)
        self.norm = nn.LayerNorm(width)  # whatever the features' scale, they count beside the structure
        self.returns = nn.Linear(options.walks, width, bias=False) if options.walks else None
        self.profile, self.vectors = None, None
        if options.laplacian:
            self.profile = nn.Sequential(nn.Linear(1, PROFILE), ACTIVATIONS[options.activation]())
            self.vectors = nn.Linear(options.laplacian * PROFILE, width, bias=False)
        self.degrees = nn.Parameter(torch.empty(DEGREES, width).normal_(std=0.02)) if options.degrees else None
        self.dropout = nn.Dropout(options.dropout)
        self.body = transformer(options.layers, width, options)

    def structure(self, relation: Relation, ptr: Int[Tensor, "items_1"]) -> Float[Tensor, "nodes places"]:
        """Where each node is: see `places`. Kept for as long as the relation lives, for other encoders too."""
        kept = _PLACES.setdefault(relation, {})
        key = self.walks, self.laplacian
        if key not in kept:
            kept[key] = torch.from_numpy(places(relation, *key)).to(relation.indptr.device)
        return kept[key]

    def forward(
        self,
        h: Float[Tensor, "nodes width_in"],
        structure: Float[Tensor, "nodes places"],
        relation: Relation,
        ptr: Int[Tensor, "items_1"],
    ) -> Float[Tensor, "nodes width"]:
        degree, returns, vectors = torch.split(structure, [1, self.walks, self.laplacian], 1)
        x: Tensor = self.norm(self.features(h))
        if self.degrees is not None:
            x = x + self.degrees[degree[:, 0].long().clamp_max(DEGREES - 1)]
        if self.returns is not None:
            x = x + self.returns(returns)
        if self.profile is not None and self.vectors is not None:
            even = self.profile(vectors[..., None]) + self.profile(-vectors[..., None])
            x = x + self.vectors(even.flatten(1))
        pattern = FULL if self.attention == "full" else Pattern("adjacency", relation=relation)
        out: Tensor = self.body(self.dropout(x), ptr, pattern)
        return out


def places(relation: Relation, walks: int, laplacian: int) -> NDArray[np.float32]:
    """Where nodes are, self-loops left out: (N, 1 + walks + laplacian).

    First the degree; then the rates at which a random walk is back after 1 to `walks` steps, the diagonal of
    (D^-1 A)^k; then eigenvectors of the normalised Laplacian I - D^-1/2 A D^-1/2 of each connected component, of all
    but its smallest eigenvalue in ascending order, with length sqrt(n) for n nodes, and zeros where there are no more.
    A graph has the same places, to the bit, in any pack. With edges of one direction, degrees count those that end at
    a node, walks go against them, and the Laplacian is that of both directions.
    """
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    indptr, source = relation.indptr.cpu().numpy(), relation.source.cpu().numpy()
    nodes = len(indptr) - 1
    target = np.repeat(np.arange(nodes), np.diff(indptr))
    source, target = source[source != target], target[source != target]
    degree = np.bincount(target, minlength=nodes)
    found = np.zeros((nodes, 1 + walks + laplacian), np.float32)
    found[:, 0] = degree
    if not len(source) or walks + laplacian == 0:
        return found
    edges = sparse.csr_array((np.ones(len(source)), (target, source)), (nodes, nodes))
    of = connected_components(edges, directed=False)[1]
    sizes = np.bincount(of)
    order = np.lexsort((of, sizes[of]))  # components side by side, those of a size together
    step, smooth = (_scaled(matrix[order][:, order]) for matrix in (edges, edges.maximum(edges.T)))
    one_way = smooth.nnz > step.nnz
    begin = 0
    for size, many in zip(*(part.tolist() for part in np.unique(sizes, return_counts=True)), strict=True):
        at_once = max(1, BLOCK // size**2) if size <= DENSE else 1
        for left in range(many, 0, -at_once):
            count = min(left, at_once)
            at = slice(begin, begin + count * size)
            begin = at.stop
            if size > DENSE:
                back = _returns_sparse(step[at, at], walks, one_way)
                vectors = _vectors_sparse(smooth[at, at], laplacian)
            else:
                back = _returns(_stack(step[at, at], count, size), walks)
                vectors = _vectors(_stack(smooth[at, at], count, size), laplacian)
            found[order[at], 1 : 1 + walks] = back.reshape(count * size, walks)
            found[order[at], 1 + walks :] = vectors.reshape(count * size, laplacian)
    return found


def _scaled(edges: Any) -> Any:
    """D^-1/2 A D^-1/2: its powers have the diagonals of those of D^-1 A. Where nothing ends, no walk comes back."""
    degree = np.diff(edges.indptr)
    root = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0.0)
    return edges.multiply(root[:, None]).multiply(root[None]).tocsr()


def _stack(block: Any, count: int, size: int) -> Floats:
    """A matrix of equal blocks on the diagonal as (count, size, size)."""
    entries = block.tocoo()
    stacked = np.zeros((count, size, size))
    stacked[entries.row // size, entries.row % size, entries.col % size] = entries.data
    return stacked


def _returns(step: Floats, walks: int) -> Floats:
    """Diagonals of powers 1 to `walks` of (count, n, n), as (count, n, walks): that of S^(a + b) is the row sums of
    S^a times the transpose of S^b, so that half of the powers are enough."""
    found = np.zeros((*step.shape[:2], walks))
    low = high = np.broadcast_to(np.eye(step.shape[1]), step.shape)
    for k in range(walks):
        if k % 2:
            low = high
        else:
            high = low @ step
        found[..., k] = (low * high.swapaxes(1, 2)).sum(-1)
    return found


def _returns_sparse(step: Any, walks: int, one_way: bool) -> Floats:
    """As `_returns`, of a sparse (n, n): some columns at a time."""
    size = step.shape[0]
    found = np.zeros((size, walks))
    for start in range(0, size, at_once := max(1, BLOCK // size)):
        columns = np.arange(start, min(start + at_once, size))
        low = high = np.zeros((size, len(columns)))
        high[columns, np.arange(len(columns))] = 1.0
        for k in range(walks):
            if k % 2 == 0:
                high = step @ high
            else:
                low = step.T @ low if one_way else high
            found[columns, k] = (low * high).sum(0)
    return found


def _vectors(smooth: Floats, laplacian: int) -> Floats:
    """Eigenvectors of I - S for S (count, n, n), as (count, n, laplacian)."""
    count, size = smooth.shape[:2]
    found = np.zeros((count, size, laplacian))
    if laplacian:
        vectors = np.linalg.eigh(smooth)[1][..., ::-1][..., 1 : 1 + laplacian]
        found[..., : vectors.shape[-1]] = vectors * np.sqrt(size)
    return found


def _vectors_sparse(smooth: Any, laplacian: int) -> Floats:
    """As `_vectors`, of a sparse (n, n): by Lanczos iterations that start at the same vector each time."""
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    size = smooth.shape[0]
    if 0 < laplacian < size // 8:
        start = np.random.default_rng(0).standard_normal(size)
        try:
            values, vectors = eigsh(smooth, laplacian + 1, which="LA", v0=start, ncv=4 * (laplacian + 8))
            found: Floats = vectors[:, np.argsort(-values)[1:]] * np.sqrt(size)
            return found
        except ArpackNoConvergence:  # eigenvalues too close together
            pass
    return _vectors(smooth.toarray()[None], laplacian).reshape(size, laplacian)
