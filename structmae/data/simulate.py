"""Simulated graphs with planted classes: `citations`, which is fixed, and its general form `sbm`."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from structmae.data.graphs import Schema
from structmae.data.splits import per_class
from structmae.data.validate import Draft
from structmae.errors import UsageError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CITATION_SHARES = (0.13, 0.08, 0.155, 0.30, 0.157, 0.11, 0.068)
#: What `sbm:` accepts, with the default of each.
SBM_DEFAULTS: dict[str, int | float] = {"n": 1000, "classes": 4, "degree": 3.9, "within": 0.81, "words": 500, "seed": 0}


def planted_citations(
    n: int = 2000,
    shares: Sequence[float] = CITATION_SHARES,
    *,
    degree: float = 3.9,
    within: float = 0.81,
    words: int = 1000,
    words_per_node: float = 18.0,
    topic: float = 0.35,
    seed: int = 0,
    name: str = "citations",
) -> Draft:
    """A citation network with planted classes: a degree-corrected planted partition with bags of words.

    Classes have the given shares of the n nodes. A node's weight is Pareto(2.5) + 0.3. Each of the n * degree / 2
    distinct undirected edges draws its first end by weight, the share `within` of them stay in that end's class, and
    draws its second end by weight there, otherwise by weight among the other classes; self-loops and repeats are drawn
    again. A node draws Poisson(words_per_node) + 1 words, each from its class's topic with probability `topic`, else
    from a background both of which follow Zipf's law with exponent 0.9 (a topic permutes the words). x says which
    words occur. 20 labels a class train; 500 nodes validate and 1,000 test (a quarter and a half of a small graph).

    The draws come from a generator of their own with `seed`, whatever the seed of the training.

    Returns:
        A draft with x (n, words) of zeros and ones and y (n,).

    Raises:
        UsageError: the graph cannot hold so many distinct edges.
    """
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(shares)), _class_sizes(n, shares)))
    weight = rng.pareto(2.5, n) + 0.3
    edges = _edges(rng, y, weight, round(n * degree / 2), within)
    x = _bag_of_words(rng, y, len(shares), words, words_per_node, topic)
    labels = torch.from_numpy(y)
    split = per_class(labels, 20, min(500, n // 4), min(1000, n // 2), rng)
    return Draft(
        name=name,
        edge_index=torch.from_numpy(edges),
        num_nodes=n,
        x=torch.from_numpy(x),
        y=labels,
        split=split,
        split_source="" if split is None else f"made: 20 a class, the rest at random, seed {seed}",
        classes=tuple(str(label) for label in range(len(shares))),
        schema=Schema(width=words),
    )


def sbm(text: str) -> Draft:
    """The graph that `sbm` or `sbm:n=10000,classes=4,degree=3.9,within=0.81,words=500,seed=1` describes.

    Raises:
        UsageError: a key that does not exist, a value that is no number, or one out of range.
    """
    values = _parse(text)
    classes = int(values["classes"])
    return planted_citations(
        n=int(values["n"]),
        shares=(1 / classes,) * classes,
        degree=values["degree"],
        within=values["within"],
        words=int(values["words"]),
        seed=int(values["seed"]),
        name="sbm",
    )


def _parse(text: str) -> dict[str, int | float]:
    values = dict(SBM_DEFAULTS)
    for part in filter(None, (piece.strip() for piece in text.partition(":")[2].split(","))):
        key, equals, given = (piece.strip() for piece in part.partition("="))
        if key not in SBM_DEFAULTS or not equals:
            raise UsageError(
                f"sbm: unknown setting '{part}'. The settings are {', '.join(f'{k}=' for k in SBM_DEFAULTS)}."
            )
        try:
            values[key] = int(given) if isinstance(SBM_DEFAULTS[key], int) else float(given)
        except ValueError:
            kind = "a whole number" if isinstance(SBM_DEFAULTS[key], int) else "a number"
            raise UsageError(f"sbm: {key} is '{given}'; it must be {kind}.") from None
    ranges = {
        "classes": (1, 1000),
        "n": (max(3, 3 * values["classes"]), 10_000_000),
        "degree": (0.0, 1000.0),
        "within": (0.0, 1.0),
        "words": (1, 1_000_000),
        "seed": (0, 2**63 - 1),
    }
    for key, (low, high) in ranges.items():
        if not low <= values[key] <= high:
            raise UsageError(f"sbm: {key} is {values[key]}; it must lie in {low}..{high}.")
    return values


def _class_sizes(n: int, shares: Sequence[float]) -> Integers:
    """Whole sizes that sum to n and are nearest to the shares (largest remainder)."""
    exact = n * np.asarray(shares) / np.sum(shares)
    sizes: Integers = np.floor(exact).astype(np.int64)
    order = np.argsort(sizes - exact, kind="stable")
    sizes[order[: n - int(sizes.sum())]] += 1
    return sizes


def _edges(rng: np.random.Generator, y: Integers, weight: Floats, count: int, within: float) -> Integers:
    """`count` distinct undirected edges in both directions, (2, 2 * count)."""
    n = y.size
    order = np.argsort(y, kind="stable")
    sizes = np.bincount(y)
    if count > _capacity(sizes, within, n):
        raise UsageError(f"sbm: {count} edges do not fit {n} nodes in {sizes.size} classes. Lower degree or raise n.")
    # On one line, each node is an interval as long as its weight, and each class is a run of them: a point drawn on the
    # line is a node by weight, a point on a run one of the class, a point that jumps the run one of the other classes.
    ends = np.cumsum(weight[order])
    stop = ends[np.cumsum(sizes) - 1]
    start = np.concatenate([[0.0], stop[:-1]])
    total = float(ends[-1])
    # Each kind of edge is drawn until it has its number: repeats are commoner inside a class, and the share is exact.
    inner = round(within * count) if sizes.size > 1 else count
    wanted = {True: inner, False: count - inner}
    kept = {True: np.zeros(0, np.int64), False: np.zeros(0, np.int64)}
    while any(kept[stays].size < wanted[stays] for stays in wanted):
        batch = int(1.2 * sum(wanted[stays] - kept[stays].size for stays in wanted)) + 64
        first = np.minimum(np.searchsorted(ends, rng.random(batch) * total, side="right"), n - 1)
        label = y[order[first]]
        length = stop[label] - start[label]
        stay = (rng.random(batch) < within) | (length >= total)
        u = rng.random(batch)
        inside = start[label] + u * length
        outside = u * (total - length)
        outside = np.where(outside >= start[label], outside + length, outside)
        second = np.minimum(np.searchsorted(ends, np.where(stay, inside, outside), side="right"), n - 1)
        low, high = np.minimum(first, second), np.maximum(first, second)
        for stays in wanted:
            drawn = (low * n + high)[(low != high) & (stay == stays)]
            # The first of equal draws stays, in the order drawn, so that the result is that of drawing one at a time.
            joined = np.concatenate([kept[stays], drawn])
            kept[stays] = joined[np.sort(np.unique(joined, return_index=True)[1])][: wanted[stays]]
    keys = np.concatenate([kept[True], kept[False]])
    one, other = order[keys // n], order[keys % n]
    return np.stack([np.concatenate([one, other]), np.concatenate([other, one])])


def _capacity(sizes: Integers, within: float, n: int) -> float:
    """A safe number of edges: half of the pairs that the draws can reach, so that redrawing repeats ends soon."""
    inner = float((sizes * (sizes - 1)).sum()) / 2
    outer = n * (n - 1) / 2 - inner
    limits = [inner / within if within > 0 else np.inf]
    limits.append(outer / (1 - within) if within < 1 and outer > 0 else np.inf)
    return 0.5 * min(limits)


def _bag_of_words(
    rng: np.random.Generator, y: Integers, classes: int, words: int, words_per_node: float, topic: float
) -> NDArray[np.float32]:
    """Which words occur in each node, (n, words) of zeros and ones."""
    law = np.cumsum(np.arange(1, words + 1, dtype=np.float64) ** -0.9)
    law /= law[-1]
    permuted = np.stack([rng.permutation(words) for _ in range(classes)])
    lengths = rng.poisson(words_per_node, y.size) + 1
    node = np.repeat(np.arange(y.size), lengths)
    rank = np.minimum(np.searchsorted(law, rng.random(node.size), side="right"), words - 1)
    from_topic = rng.random(node.size) < topic
    word = np.where(from_topic, permuted[y[node], rank], rank)
    x = np.zeros((y.size, words), np.float32)
    x[node, word] = 1.0
    return x
