"""Clustering: k-means on frozen vectors against the labels, beside raw features and the same recipe without terms."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

from structmae.errors import StructmaeError, UsageError
from structmae.evaluate import series_classification
from structmae.evaluate.frozen import frozen
from structmae.evaluate.image_classification import pixels
from structmae.evaluate.vectors import item_vectors
from structmae.nn.base import Encoder
from structmae.nn.gnn import pooled
from structmae.recipe import Recipe

if TYPE_CHECKING:
    from structmae.run import Run

READS_RUN = True
STARTS = 10  # of k-means: the best of them counts
Ids = NDArray[np.int64]


def check(data: Any, recipe: Recipe) -> None:
    """Raises StructmaeError where there are no labels of two classes, UsageError where the recipe's vectors are not of
    what is labelled."""
    pool = recipe.encoder.pool
    if data.level in ("panel", "text"):
        raise UsageError(f"clustering needs items with labels, and {data.name} has none: leave --task out")
    if data.y is None:
        raise StructmaeError(f"{data.name} has no labels, so there is nothing to evaluate on")
    if len(np.unique(_labels(data)[_labels(data) >= 0])) < 2:
        raise StructmaeError(f"clustering needs labels of two classes or more; {data.name} has fewer")
    if data.level == "node" and pool != "none":
        raise UsageError(f"encoder.pool={pool} gives one vector a graph: set encoder.pool=none")
    if data.level in ("graph", "sample") and pool == "none":
        of = "node" if data.level == "graph" else "token"
        raise UsageError(f"encoder.pool=none gives one vector a {of}: pre-train with --set encoder.pool=mean")


def evaluate(
    encoder: Encoder,
    initial: Encoder,
    source: Any,
    data: Any,
    recipe: Recipe,
    *,
    run: "Run",
    progress: Callable[[str], None] | None = None,
    at_once: int = 256,
) -> dict[str, Any]:
    """Agreement with the labels of k-means on the vectors of `encoder`, beside `initial`, the same before training, the
    same recipe without terms ("plain", where the run has any), and raw features. Where the run has the clustering term,
    "assigned" is the cluster that the term itself gives each item.

    All items count, as no label is read before the score; k is the number of classes. progress: takes a line as each
    arm is done. at_once: items that an encoder reads at once.

    Raises UsageError and StructmaeError as `check` does.
    """
    check(data, recipe)
    y, classes = _labels(data), len(data.classes)
    encoders = {"pretrained": encoder, "plain": run.plain_encoder(progress), "random_init": initial}
    if encoders["plain"] is encoder:
        del encoders["plain"]
    with frozen(*encoders.values()):
        vectors = {arm: _vectors(part, source, data, at_once) for arm, part in encoders.items()}
        found = {"pretrained": _k_means(vectors["pretrained"], classes, recipe.train.seed)}
        terms: Any = getattr(run.model, "terms", {})
        if "clustering" in terms:
            term = terms["clustering"]
            mine = item_vectors(encoder, source, at_once=at_once)
            if len(mine) == len(y):  # a recording of several windows or series has no one cluster
                found["assigned"] = term.assign(mine.to(term.centres.device)).argmax(1).cpu().numpy(), term.clusters
    raw = _raw(source, data, recipe, encoder)
    for arm, x in {**vectors, **({} if raw is None else {"raw_features": raw})}.items():
        if arm not in found:
            found[arm] = _k_means(x, classes, recipe.train.seed)
    rows = []
    for arm, (cluster, clusters) in found.items():
        rows.append({"features": arm, **agreement(cluster, y, clusters)})
        if progress is not None:
            progress(f"{arm}: ari {rows[-1]['value']:.4f}")
    return {
        "task": "clustering",
        "metric": "ari",
        "better": "higher",
        "split": "all",
        "split_source": "every labelled item: clusters are found without labels",
        **{row["features"]: row["value"] for row in rows},
        "rows": rows,
    }


def agreement(cluster: Ids, y: Ids, clusters: int) -> dict[str, Any]:
    """Adjusted Rand index and normalised mutual information with the labels of items that have one (0 or more), and how
    all items are shared out among the clusters."""
    known = y >= 0
    occupancy = np.sort(np.bincount(cluster, minlength=clusters) / len(cluster))[::-1]
    return {
        "value": float(adjusted_rand_score(y[known], cluster[known])),
        "nmi": float(normalized_mutual_info_score(y[known], cluster[known])),
        "n": int(known.sum()),
        "clusters": clusters,
        "smallest_share": float(occupancy[-1]),
        "occupancy": occupancy.tolist(),
    }


def _labels(data: Any) -> Ids:
    return np.asarray(data.y, np.int64)


def _k_means(x: Tensor, clusters: int, seed: int) -> tuple[Ids, int]:
    """The cluster of each row. Raises StructmaeError where there are fewer rows than clusters."""
    if len(x) < clusters:
        raise StructmaeError(f"clustering: {len(x)} items can't make {clusters} clusters; give more items")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than clusters: some stay empty
        found = KMeans(clusters, n_init=STARTS, random_state=seed).fit_predict(x.numpy())
    return found.astype(np.int64), clusters


def _vectors(encoder: Encoder, source: Any, data: Any, at_once: int) -> Tensor:
    """One vector for each label."""
    if data.level == "sample":
        return series_classification.vectors(encoder, source, at_once=at_once)
    return item_vectors(encoder, source, at_once=at_once)


def _raw(source: Any, data: Any, recipe: Recipe, encoder: Encoder) -> Tensor | None:
    """What needs no encoder: pixels; nodes' features, of graphs pooled as the recipe has it; the values of recordings
    that are equally long (None: they are not)."""
    if data.level == "image":
        return pixels(data, source.tokenizer)
    if data.level == "sample":
        if len(np.unique(np.diff(data.ptr))) > 1:
            return None
        whole = torch.from_numpy(series_classification.raw(source))
        return whole.reshape(len(whole), -1)
    values: Tensor = encoder.tokenizer.values(data.x.to(source.device)).cpu()
    if data.level == "node":
        return values
    graph = torch.arange(data.num_items).repeat_interleave(data.ptr.diff())
    return pooled(values, graph, data.num_items, recipe.encoder.pool)
