"""Scores (M,) float64, 0 or more, for the weight of a layout, which strategy "weighted" chooses by.

>>> degree([[0, 1, 2], [1, 2, 1]], num_nodes=3).tolist()
[0.0, 2.0, 1.0]
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from structmae.errors import UsageError
from structmae.masking.groups import Ints, endpoints, whole

Floats = NDArray[np.float64]


def degree(edge_index: Any, num_nodes: int) -> Floats:
    """(N,) how many edges end at each node; a repeated edge counts again.

    edge_index (2, E) int. Raises UsageError for another shape or dtype, or a node outside 0..N-1.
    """
    num_nodes = whole("num_nodes", num_nodes, 0)
    return np.bincount(endpoints(edge_index, num_nodes)[1], minlength=num_nodes).astype(np.float64)


def pagerank(
    edge_index: Any,
    num_nodes: int,
    *,
    ptr: Any = None,
    damping: float = 0.85,
    tolerance: float = 1e-8,
    iterations: int = 100,
) -> Floats:
    """(N,) PageRank by power iteration, summing to 1 in each graph (Page et al., The PageRank Citation Ranking, 1999).

    edge_index (2, E) int: a source gives its rank to its targets, in equal parts; a repeated edge counts again, and a
    node without targets gives to all nodes of its graph. ptr (I+1,) int: borders of packed graphs, default one graph.
    A graph is done where its scores moved by `tolerance` or less in sum, or after `iterations`: at damping 0.85 the
    sum of errors is then below 1e-6. A graph's scores are the same, to the bit, alone and packed.

    Raises UsageError for damping outside [0, 1), a node outside 0..N-1, or an edge between graphs.
    """
    num_nodes, iterations = whole("num_nodes", num_nodes, 0), whole("iterations", iterations, 0)
    if not _number(damping) or not 0.0 <= damping < 1.0:
        raise UsageError(f"damping = {damping!r}: must be at least 0 and below 1; give 0.85, the usual one")
    if not _number(tolerance) or not tolerance >= 0.0:
        raise UsageError(f"tolerance = {tolerance!r}: must be a number, 0 or more; give a small one, such as 1e-8")
    source, target = endpoints(edge_index, num_nodes)
    sizes = np.diff(_borders(ptr, num_nodes))
    graph = np.repeat(np.arange(len(sizes)), sizes)
    across = np.flatnonzero(graph[source] != graph[target])
    if len(across):
        a, b = source[across[0]], target[across[0]]
        raise UsageError(f"edge {a} -> {b}: joins two graphs, by ptr; remove it, or leave ptr out to rank all as one")
    out = np.bincount(source, minlength=num_nodes)
    even = 1.0 / sizes[graph]
    dangling = out == 0
    passed = damping / np.maximum(out, 1)
    rank = even
    done = np.zeros(len(sizes), bool)
    for _ in range(iterations):
        # bincount adds in the order of its input, so a graph's sums do not depend on what is packed with it.
        lost = damping * np.bincount(graph, np.where(dangling, rank, 0.0), len(sizes))
        given = np.bincount(target, (rank * passed)[source], num_nodes)
        moved = np.where(done[graph], rank, (1.0 - damping + lost[graph]) * even + given)
        done |= np.bincount(graph, np.abs(moved - rank), len(sizes)) <= tolerance
        rank = moved
        if done.all():
            break
    return rank


def variance(values: Any, observed: Any = None) -> Floats:
    """(M,) the variance (divisor n) of the observed entries of each token; 0 where fewer than two are observed.

    values (M, P) numbers; observed (M, P) bool, default all. Entries that are not observed may be anything, NaN too.
    Raises UsageError for another shape or dtype, or an observed entry that is not finite.

        >>> variance([[1.0, 3.0], [5.0, 9.0]], [[True, True], [True, False]]).tolist()
        [1.0, 0.0]
    """
    a = np.asarray(values)
    if a.dtype.kind not in "iuf" or a.ndim != 2:
        raise UsageError(f"values has dtype {a.dtype} and shape {a.shape}: must be numbers and (M, P); convert it")
    seen = np.ones(a.shape, bool) if observed is None else np.asarray(observed)
    if seen.dtype != bool or seen.shape != a.shape:
        raise UsageError(
            f"observed has dtype {seen.dtype} and shape {seen.shape}: must be bool and {a.shape}, as values; convert it"
        )
    a = np.where(seen, a, 0).astype(np.float64)
    if not np.isfinite(a).all():
        token, entry = np.argwhere(~np.isfinite(a))[0]
        raise UsageError(
            f"values[{token}, {entry}] = {a[token, entry]}: must be finite where observed; "
            "mend it, or give observed=np.isfinite(values)"
        )
    n = np.maximum(seen.sum(axis=1, keepdims=True), 1)
    mean = a.sum(axis=1, keepdims=True) / n
    # Two passes: the mean of squares less the square of the mean would lose all digits far from 0.
    off = np.where(seen, a - mean, 0.0)
    result: Floats = (off**2).sum(axis=1) / n[:, 0]
    return np.where(seen.sum(axis=1) < 2, 0.0, result)


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _borders(ptr: Any, num_nodes: int) -> Ints:
    a = np.asarray([0, num_nodes] if ptr is None else ptr)
    if a.dtype.kind not in "iu" or a.ndim != 1:
        raise UsageError(f"ptr has dtype {a.dtype} and shape {a.shape}: must be integers in one dimension; convert it")
    if len(a) == 0 or a[0] != 0 or a[-1] != num_nodes or (a[1:] < a[:-1]).any():
        short = np.array2string(a, threshold=6, edgeitems=2, separator=", ")
        raise UsageError(f"ptr = {short}: must rise from 0 to num_nodes = {num_nodes}; give cumulative node counts")
    return a.astype(np.int64, copy=False)
