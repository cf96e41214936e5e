"""Link prediction: which pairs of nodes are edges that pre-training did not see."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from structmae import masking
from structmae.data import Graphs
from structmae.data.links import SPLIT_SOURCE, scored_pairs
from structmae.errors import UsageError
from structmae.evaluate.arms import arms
from structmae.evaluate.ridge import PENALTIES, Gram
from structmae.nn.base import Encoder
from structmae.recipe import Recipe
from structmae.tokens.graph import GraphSource

READS_RUN = True
FITTED = 20_000  # edges, and as many pairs that are none, that a head is fitted on, at most
BLOCK = 4096  # pairs at once
FIT_DRAW = 2  # the number of the draw of those pairs, apart from those of training and of the scored pairs

Pairs = Int[Tensor, "2 pairs"]
Scores = Float[Tensor, "pairs"]
Scored = dict[str, tuple[Tensor, Tensor]]


def check(graphs: Graphs, recipe: Recipe) -> None:
    """Raises UsageError where no edges were held out, or the recipe gives no vectors of nodes."""
    if graphs.level != "node":
        raise UsageError(f"link_prediction: {graphs.name} is a set of graphs; the task is graph_classification")
    if graphs.held_out is None:
        raise UsageError(
            "link_prediction scores edges that training did not see, and data.edges=all hides none: pretrain with "
            "--set data.edges=train"
        )
    if recipe.encoder.pool != "none":
        raise UsageError(f"encoder.pool={recipe.encoder.pool} gives one vector a graph: set encoder.pool=none")


def evaluate(
    encoder: Encoder, initial: Encoder, source: GraphSource, graphs: Graphs, recipe: Recipe, *, run: Any = None
) -> dict[str, Any]:
    """Area under the ROC curve of `encoder` beside `initial`, the same before training, plain features (see `arms`),
    the decoder that the run was trained with, and counts of neighbours; all of the training edges alone.

    Every arm of vectors has the same heads to choose from, on validation: the cosine of two vectors, or a ridge of
    their product, fitted on training edges and as many pairs that are none.
    """
    check(graphs, recipe)
    scored, fitted = scored_pairs(graphs), _fitted_pairs(graphs)
    rows = [_of_vectors(arm, z, fitted, scored) for arm, z in arms(encoder, initial, source, pool="none").items()]
    known = [("own_decoder", _decoder(run, source)), *_of_neighbours(graphs).items()]
    rows += [_row(arm, score, scored) for arm, score in known if score is not None]
    return {
        "task": "link_prediction",
        "metric": "auc",
        "better": "higher",
        "split": "test",
        "split_source": SPLIT_SOURCE,
        **{row["features"]: row["value"] for row in rows},
        "ap": {row["features"]: row["ap"] for row in rows},
        "rows": rows,
    }


def auc(scores: Scores, labels: Float[Tensor, "pairs"]) -> float:
    """The chance that a pair with label 1 scores above one with label 0; ties count half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels.numpy(), scores.numpy()))


def _row(arm: str, score: Callable[[Tensor], Tensor], scored: Scored, **facts: Any) -> dict[str, Any]:
    """What the table says of an arm that gives scores of pairs: the test's are made here, once."""
    from sklearn.metrics import average_precision_score

    pairs, labels = scored["test"]
    found = score(pairs)
    on_validation = score(scored["validation"][0])
    return {
        "features": arm,
        "value": auc(found, labels),
        "ap": float(average_precision_score(labels.numpy(), found.numpy())),
        "validation": auc(on_validation, scored["validation"][1]),
        "std": None,
        "n": len(labels),
        **facts,
    }


def _of_vectors(arm: str, z: Float[Tensor, "nodes width"], fitted: Scored, scored: Scored) -> dict[str, Any]:
    z = torch.nn.functional.normalize(z)
    pairs, labels = fitted["train"]
    gram = Gram(z.shape[1] + 1, 1)
    for block, y in zip(_products(z, pairs), torch.split(labels, BLOCK), strict=True):
        gram.add(block, 2 * y[:, None] - 1)
    cosine = torch.ones(1, z.shape[1] + 1, 1, dtype=torch.float64)
    weights = torch.cat([cosine, gram.solve(free=1).flip(0)])[..., 0].T.to(z.dtype)  # the plainest first
    penalties: list[float | None] = [None, *reversed(PENALTIES)]
    validation, truth = scored["validation"]
    tried = torch.cat([block @ weights for block in _products(z, validation)])
    scores = [auc(column, truth) if bool(column.isfinite().all()) else -math.inf for column in tried.T]
    at = scores.index(max(scores))

    def score(pairs: Tensor) -> Tensor:
        return torch.cat([block @ weights[:, at] for block in _products(z, pairs)])

    head = {"name": "ridge" if at else "cosine", "penalty": penalties[at]}
    return _row(arm, score, scored, head=head)


def _products(z: Float[Tensor, "nodes width"], pairs: Pairs) -> Iterator[Float[Tensor, "block width_1"]]:
    """Elementwise products of the vectors of both ends, and a 1."""
    for a, b in torch.split(pairs, BLOCK, 1):
        yield torch.cat([z[a] * z[b], z.new_ones(len(a), 1)], 1)


def _fitted_pairs(graphs: Graphs) -> Scored:
    """Training edges and as many pairs that are none of them, all of the edges where there are no more than FITTED."""
    edges = masking.edges(graphs.edge_index.numpy(), graphs.num_nodes)
    many = edges.pairs.shape[1]
    some = masking.permutation(many, seed=0, visit=0)[:FITTED]
    none = edges.negatives(len(some), seed=0, visit=masking.VALIDATION, draw=FIT_DRAW)
    pairs = torch.cat([torch.from_numpy(edges.pairs[:, some]), torch.from_numpy(none)], 1)
    return {"train": (pairs, torch.cat([torch.ones(len(some)), torch.zeros(none.shape[1])]))}


def _decoder(run: Any, source: GraphSource) -> Callable[[Tensor], Tensor] | None:
    """Scores by the decoder of pairs that the run was trained with; None where there is none."""
    heads = getattr(getattr(run, "model", None), "heads", {})
    head = next((head for head in heads.values() if head.options.of == "pair"), None)
    if head is None or source.num_items > 1:
        return None
    model = run.model

    def score(pairs: Tensor) -> Tensor:
        training = model.training
        model.eval()
        with torch.no_grad():
            encoded = model.encode(source.everything())
            found: Tensor = head.decoder(encoded, pairs.to(source.device), None)[:, 0].cpu()
        model.train(training)
        return found

    return score


def _of_neighbours(graphs: Graphs) -> dict[str, Callable[[Tensor], Tensor]]:
    """Neighbours in common, the same weighed by 1 / log(degree) (Adamic and Adar, 2003), and products of degrees."""
    from scipy.sparse import csr_matrix

    size = graphs.num_nodes
    source, target = graphs.edge_index.numpy()
    matrix = csr_matrix((torch.ones(len(source)).numpy(), (source, target)), (size, size))
    matrix = matrix.maximum(matrix.T).tocsr()
    degree = torch.from_numpy(matrix.getnnz(1)).double()
    rarity = (1 / degree.clamp_min(2).log()).numpy()

    def common(weight: Any) -> Callable[[Tensor], Tensor]:
        def score(pairs: Tensor) -> Tensor:
            a, b = pairs.numpy()
            return torch.from_numpy(matrix[a].multiply(matrix[b]) @ weight).double()

        return score

    return {
        "common_neighbours": common(torch.ones(size).numpy()),
        "adamic_adar": common(rarity),
        "preferential_attachment": lambda pairs: degree[pairs[0]] * degree[pairs[1]],
    }
