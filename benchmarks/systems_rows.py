"""What each system's row checks: from its runs, "own" and those it stands beside, to numbers with their bounds."""

import json
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import systems_checks as mechanisms

from structmae import registry
from structmae.evaluate.arms import embed
from structmae.nn.base import Encoder
from structmae.run import Run

Check = dict[str, Any]  # what, value, must, bound, holds
Runs = Mapping[str, Run]
MUST = {
    ">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt, "=": operator.eq, "yes": operator.eq,
}  # fmt: skip


def check(what: str, value: float, must: str, bound: float) -> Check:
    """A number that must stand so to its bound. What is no number holds nothing."""
    value, bound = float(value), float(bound)
    holds = math.isfinite(value) and math.isfinite(bound) and bool(MUST[must](value, bound))
    return {"what": what, "value": _finite(value), "must": must, "bound": _finite(bound), "holds": holds}


def yes(what: str, value: bool) -> Check:
    """Something that must be so."""
    return check(what, value, "yes", 1)


def told(what: str, value: float | None) -> Check:
    """A number that is reported, whatever it is."""
    found = None if value is None else _finite(float(value))
    return {"what": what, "value": found, "must": "reported", "bound": None, "holds": None}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN


def mae(runs: Runs) -> list[Check]:
    run = runs["own"]
    row, scored = run.evaluate(task="reconstruction")["rows"][0], run.evaluate(task="image_classification")
    return [
        yes("another hidden patch leaves the latents bit-identical", mechanisms.hidden_unread(run)),
        check("masked squared error over that of the mean of each place", row["ratio"], "<=", 0.70),
        check("probe at 10 labels a class, less that of random init", _gain(scored), ">=", 0.25),
        *_arms(scored, "probe"),
    ]


def bert(runs: Runs) -> list[Check]:
    run = runs["own"]
    row = run.evaluate(task="reconstruction")["rows"][0]
    odd, windows = mechanisms.odd_items(run)
    mask, shares, masked = run.recipe.mask, row["shares"], row["masked"]
    wanted = {mask.act: 1 - mask.random - mask.keep, "random": mask.random, "keep": mask.keep}
    off = max(100 * abs(shares.get(act, 0.0) - share) for act, share in wanted.items())
    return [
        check(f"of {windows} windows, those with a share that is no floor or ceiling", odd, "=", 0),
        check("shares of all scored pieces, off 80/10/10 by points", off, "<=", 0.2),
        check("accuracy at masks, against a two-sided bigram model", masked["pretrained"], ">", masked["bigram"]),
        told("accuracy at masks, the commonest piece", masked["unigram"]),
        told("accuracy at all scored pieces", row["value"]),
        told("accuracy at all scored pieces, bigram model", row["bigram"]),
    ]


def igpt(runs: Runs) -> list[Check]:
    run = runs["own"]
    row = run.evaluate(task="reconstruction")["rows"][0]
    scored = run.evaluate(task="image_classification")
    layer = next(arm["layer"] for arm in scored["rows"] if arm["features"] == "pretrained")
    return [
        yes("another pixel leaves the logits up to it bit-identical", mechanisms.causal(run)),
        check("bits a pixel, against the unigrams", row["value"], "<", row["unigram"]),
        check("bits a pixel, against the previous pixel's", row["value"], "<", row["previous"]),
        told("bits a pixel, unigrams of each place", row["position"]),
        told(f"layer that validation chooses, of {run.recipe.encoder.layers}", layer),
        *_arms(scored, "probe"),
    ]


def cmae(runs: Runs) -> list[Check]:
    run = runs["own"]
    scored, beside = (runs[name].evaluate(task="image_classification") for name in ("own", "mae"))
    row = next(row for row in scored["rows"] if row["features"] == "pretrained")
    steps = [runs[name].recipe.train for name in ("own", "mae")]
    equal = len({(train.epochs, train.batch_size) for train in steps}) == 1
    return [
        yes("the averaged encoder gets no gradient, the other one does", mechanisms.averages_unmoved(run)),
        check("spread of normalised vectors, deviation x sqrt(width)", row["spread"], ">=", 0.5),
        told("the same, less the mean vector", row["spread_centred"]),
        told(f"effective rank, of {run.encoder.width}", row["effective_rank"]),
        yes("as many steps as mae", equal),
        told("probe, mae", beside["pretrained"]),
        *_arms(scored, "probe"),
    ]


def multimae(runs: Runs) -> list[Check]:
    run = runs["own"]
    read, subsets = mechanisms.subsets_read(run)
    rows = run.evaluate(task="reconstruction")["rows"]
    return [
        check("different numbers of visible patches an image", mechanisms.visible_counts(run), "=", 1),
        check("subsets of the maps that are read, each its own way", read, "=", subsets),
        *(
            check(
                f"{row['head']}: squared error with the others there, against alone", row["together"], "<", row["alone"]
            )
            for row in rows
        ),
        *(told(f"{row['head']}: from the others alone", row["from_others"]) for row in rows),
    ]


def graph_transformer(runs: Runs) -> list[Check]:
    run = runs["own"]
    order = mechanisms.order_matters(run)
    return [
        check("another order of the nodes: largest difference, of the largest latent", order, "<=", 1e-4),
        yes("the other sign of eigenvectors leaves the latents bit-identical", mechanisms.signs_unread(run)),
        yes("other features of hidden nodes leave the latents bit-identical", mechanisms.hidden_unread(run)),
        *_accuracies(runs),
    ]


def graphmae2(runs: Runs) -> list[Check]:
    run = runs["own"]
    name, head = next((name, head) for name, head in run.recipe.heads.items() if head.remask == "random")
    return [
        check("different re-masks in a step", mechanisms.different_remasks(run, name), "=", head.remask_draws),
        yes("the average that gives the target gets no gradient", mechanisms.averages_unmoved(run)),
        *_accuracies(runs),
    ]


def maskgae_path(runs: Runs) -> list[Check]:
    run, whole = runs["own"], runs["all edges"]
    scored = run.evaluate(task="link_prediction")
    rows = {row["features"]: row for row in scored["rows"]}
    arm = max(("pretrained", "own_decoder"), key=lambda arm: rows[arm]["validation"])
    return [
        check("hidden edges that the encoder gets, either way", mechanisms.hidden_edges_seen(run), "=", 0),
        yes("the latents are those of a graph that never had them", mechanisms.as_if_never_there(run)),
        check("AUC of links, by vectors or the own decoder, as validation chooses", rows[arm]["value"], ">=", 0.955),
        check("accuracy, trained on all edges", _accuracy(whole, whole.encoder), ">=", 0.82),
        told("accuracy, random init", _accuracy(whole, whole.initial_encoder())),
        told("accuracy, trained without the scored edges", _accuracy(run, run.encoder)),
        *_arms(scored, "AUC of links"),
    ]


def clustering(runs: Runs) -> list[Check]:
    run = runs["own"]
    scored = run.evaluate(task="clustering")
    rows = {row["features"]: row for row in scored["rows"]}
    mine = rows["assigned"]
    return [
        check(
            "ARI of the assigned clusters, against k-means on raw", mine["value"], ">", rows["raw_features"]["value"]
        ),
        check("share of the items that the smallest cluster has", mine["smallest_share"], ">=", 0.02),
        told("NMI of the assigned clusters", mine["nmi"]),
        told("NMI of k-means on raw", rows["raw_features"]["nmi"]),
        *_arms(scored, "ARI of k-means", but=("assigned", "raw_features")),
    ]


def terms(runs: Runs) -> list[Check]:
    """The mean over the last epoch against that over the first."""
    folder = runs["own"].folder
    assert folder is not None
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    names = [key.removeprefix("loss_") for key in lines[0] if key.startswith("loss_")]
    return [
        check(f"loss of {name}, last epoch against the first", lines[-1][f"loss_{name}"], "<", lines[0][f"loss_{name}"])
        for name in sorted(names, key=lambda name: name not in ("infonce", "uniformity"))
    ]


def _gain(scored: Mapping[str, Any]) -> float:
    return float(scored["pretrained"] - scored["random_init"])


def _arms(scored: Mapping[str, Any], what: str, but: tuple[str, ...] = ()) -> list[Check]:
    """All arms' scores."""
    return [
        told(f"{what}, {row['features'].replace('_', ' ')}", row["value"])
        for row in scored["rows"]
        if row["features"] not in but
    ]


def _accuracies(runs: Runs) -> list[Check]:
    """Of the runs side by side, each after its own epochs, and of the own one before training. Simple features are in
    the tables of node and graph classification."""
    found = [
        told(
            f"accuracy{'' if name == 'own' else f', {name}'}, {run.result['epochs']} epochs",
            _accuracy(run, run.encoder),
        )
        for name, run in runs.items()
    ]
    own = runs["own"]
    return [*found, told("accuracy, random init", _accuracy(own, own.initial_encoder()))]


def _accuracy(run: Run, encoder: Encoder) -> float:
    """As the task has it, of the vectors of one encoder alone."""
    data: Any = run.data()
    part = registry.get("task", "node_classification" if data.level == "node" else "graph_classification")
    return float(part.score({"one": embed(encoder, run.source(data))}, data, run.recipe)["one"])


CHECKS: dict[str, Callable[[Runs], list[Check]]] = {
    "mae": mae,
    "bert": bert,
    "igpt": igpt,
    "cmae": cmae,
    "multimae": multimae,
    "gmae": graph_transformer,
    "graph_transformer": graph_transformer,
    "graphmae2": graphmae2,
    "maskgae_path": maskgae_path,
    "clustering": clustering,
    "terms": terms,
}
