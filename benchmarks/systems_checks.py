"""Mechanisms of a trained model: what can reach its encoder, what gets a gradient, and what its plans hide.

Each function reads a run, of its own data, and gives a number or a yes. Where nothing would change whatever happened,
the answer is no: a check that can't fail shows nothing.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from structmae import Images, masking
from structmae.evaluate.frozen import frozen
from structmae.masking import VALIDATION, Act
from structmae.model import Batch
from structmae.planning import Planner
from structmae.recipe import amend
from structmae.run import Run, build
from structmae.tokens import Relation, TokenSet
from structmae.views import Shadow

ITEMS = 64  # of a batch that is looked at
VISITS = (0, 1, VALIDATION)
EIGENVECTORS = 4


def drawn(run: Run, *, visit: int = VALIDATION, **settings: Any) -> Batch:
    """The first training items, hidden as in training; `settings` of the recipe by key, `__` for the dot."""
    source = run.source(run.data())
    recipe = amend(run.recipe, {key.replace("__", "."): value for key, value in settings.items()})
    items = torch.arange(min(ITEMS, source.num_items))
    return Planner.of(recipe).batch(source, items, visit=visit, step=0)


def hidden_unread(run: Run) -> bool:
    """Other content in hidden tokens leaves the encoder's output as it is, to the bit; in visible ones it does not.

    No token gets another's content here: that of GraphMAE, as published, may be a hidden one's."""
    batch = drawn(run, mask__random=0.0)
    name = next(iter(batch.tokens))
    part, plan = batch.tokens[name], batch.plans[name]
    with frozen(run.model):
        before, hidden, visible = (
            run.model.encode({**batch.tokens, name: tokens}, batch.plans).latent[name]
            for tokens in (part, changed(part, plan.hidden), changed(part, plan.visible))
        )
    return len(plan.hidden) > 0 and torch.equal(before, hidden) and not torch.equal(before, visible)


def changed(part: TokenSet, rows: Tensor) -> TokenSet:
    """The tokens with other values in `rows`."""
    noise = torch.randn(len(rows), part.values.shape[1], generator=torch.Generator().manual_seed(0))
    return replace(part, values=part.values.index_add(0, rows, noise.to(part.values)))


def causal(run: Run) -> bool:
    """Another id at a place leaves the predictions up to it as they are, to the bit, and changes later ones: at every
    place but the last."""
    batch = drawn(run)
    ((name, part),) = batch.tokens.items()
    (head,) = run.model.heads.values()
    assert part.ids is not None
    assert part.position is not None
    every = torch.arange(len(part), device=part.ids.device)

    def said(ids: Tensor) -> Tensor:
        encoded = run.model.encode({name: replace(part, ids=ids)}, batch.plans)
        found: Tensor = head.decoder(encoded, every, None)
        return found

    with frozen(run.model):
        before = said(part.ids)
        for place in range(int(part.position.max())):
            there = part.position == place
            after = said(torch.where(there, (part.ids + 1) % run.encoder.vocabulary, part.ids))
            early = part.position <= place
            if not torch.equal(before[early], after[early]) or torch.equal(before[~early], after[~early]):
                return False
    return True


def averages_unmoved(run: Run) -> bool:
    """A step gives a gradient to the encoder and none to any moving average, which the optimizer does not have."""
    batch = drawn(run)
    model = deepcopy(run.model).train()
    averages = [part for part in model.modules() if isinstance(part, Shadow)]
    with torch.random.fork_rng(devices=[]):
        model(batch).total.backward()
    held = [weight for average in averages for weight in average.parameters()]
    trained = {id(weight) for group in model.groups() for weight in group["params"]}
    moved = any(weight.grad is not None and bool(weight.grad.any()) for weight in model.encoder.parameters())
    still = all(weight.grad is None and id(weight) not in trained for weight in held)
    return len(held) > 0 and moved and still


def _plans(run: Run) -> Iterator[tuple[TokenSet, Any]]:
    """All items of the data, of any part, and the plan that is validation's."""
    planner = Planner.of(run.recipe)
    for step, tokens in enumerate(run.source(run.data()).sweep(256)):
        plans = planner.draw(tokens, visit=VALIDATION, step=step)
        name = next(iter(tokens))
        yield tokens[name], plans[name].plan


def visible_counts(run: Run) -> int:
    """How many different numbers of visible tokens items have."""
    found: set[int] = set()
    for part, plan in _plans(run):
        found |= set(np.bincount(part.batch.cpu().numpy()[plan.visible], minlength=len(part.item_id)).tolist())
    return len(found)


def odd_items(run: Run) -> tuple[int, int]:
    """Items of which a count is no floor or ceiling of what the recipe asks for, and items in all: the scored of its
    tokens, and of these each act."""
    mask, odd, many = run.recipe.mask, 0, 0
    shares = {Act.RANDOM: mask.random, Act.KEEP: mask.keep, Act[mask.act.upper()]: 1 - mask.random - mask.keep}
    for part, plan in _plans(run):
        item = part.batch.cpu().numpy()[plan.scored]
        scored = np.bincount(item, minlength=len(part.item_id))
        wrong = scored != masking.count(mask.ratio, part.ptr.diff().cpu().numpy())
        for act, share in shares.items():
            count = np.bincount(item[plan.act == int(act)], minlength=len(part.item_id))
            low, high = np.floor(share * scored + 1e-9), np.ceil(share * scored - 1e-9)
            wrong |= (count < low) | (count > high)
        odd, many = odd + int(wrong.sum()), many + len(scored)
    return odd, many


def subsets_read(run: Run) -> tuple[int, int]:
    """Of all subsets of the maps, those of which the encoder makes vectors that are finite and their own; and how many
    subsets there are."""
    data = run.data()
    assert isinstance(data, Images)
    x = data.x[:ITEMS].to(run.device)
    of = torch.arange(len(data.maps)).repeat_interleave(torch.tensor([size for _, size in data.maps]))
    maps = range(len(data.maps))
    subsets = [some for size in maps for some in combinations(maps, size + 1)]
    found: list[Tensor] = []
    with frozen(run.encoder):
        for some in subsets:
            absent = ~torch.isin(of, torch.tensor(some))
            vectors = run.encoder(x.masked_fill(absent[None, :, None, None].to(x.device), float("nan")))
            if bool(vectors.isfinite().all()) and not any(torch.equal(vectors, other) for other in found):
                found.append(vectors)
    return len(found), len(subsets)


def order_matters(run: Run) -> float:
    """The largest difference that another order of each graph's nodes makes to their latents, as a share of the largest
    latent. The order is random, and the nodes are put back before they are compared."""
    part = drawn(run).tokens["node"]
    rank = torch.rand(len(part), generator=torch.Generator().manual_seed(0)).to(part.values.device)
    order = torch.argsort(part.batch + 0.99 * rank.double())
    place = torch.argsort(order)
    relation = Relation.of(place[part.relations["edges"].edge_index], len(part))
    moved = TokenSet(part.values[order], part.ptr, part.item_id, {"edges": relation})
    with frozen(run.model):
        before, after = (run.model.encode({"node": tokens}).latent["node"] for tokens in (part, moved))
    if torch.equal(place, torch.arange(len(part), device=place.device)):
        return float("nan")
    return float((after[place] - before).abs().max() / before.abs().max())


def signs_unread(run: Run) -> bool:
    """With eigenvectors among the inputs, as many as EIGENVECTORS, the other sign of all of them leaves the latents as
    they are, to the bit; without them the latents differ. Of the model at its initial weights."""
    recipe = amend(run.recipe, {"encoder.laplacian": EIGENVECTORS})
    encoder: Any = build(recipe, deepcopy(run.encoder.tokenizer)).encoder.to(run.device)
    tokens = {"node": drawn(run).tokens["node"]}
    with frozen(encoder):
        node = encoder.reveal({}, tokens, {})["node"]
        vectors = torch.arange(node.structure.shape[1], device=run.device) >= node.structure.shape[1] - EIGENVECTORS
        as_is, flipped, gone = (
            encoder.encode({"node": node.values}, {"node": replace(node, structure=structure)})["node"]
            for structure in (
                node.structure,
                torch.where(vectors, -node.structure, node.structure),
                node.structure.masked_fill(vectors, 0.0),
            )
        )
    return torch.equal(as_is, flipped) and not torch.equal(as_is, gone)


def different_remasks(run: Run, head: str) -> int:
    """How many of a head's re-masks in one step are different."""
    return len({tuple(plan.hidden.tolist()) for plan in drawn(run).remasks[head]})


def hidden_edges_seen(run: Run) -> int:
    """How many hidden edges the encoder gets, either way, over some visits; -1 where none are hidden or none seen."""
    found = 0
    for visit in VISITS:
        hidden, seen = _edges(run, drawn(run, visit=visit))
        if not len(hidden) or not len(seen):
            return -1
        found += int(torch.isin(seen, hidden).sum())
    return found


def as_if_never_there(run: Run) -> bool:
    """The latents are, to the bit, those of the graph without the hidden edges, and not those of the whole graph."""
    batch = drawn(run)
    size = len(batch.tokens["node"])
    seen = _edges(run, batch)[1]
    graph: Any = run.data()
    edges = torch.stack([seen // size, seen % size]).cpu()
    ptr, items = graph.ptr, torch.arange(graph.num_items)
    without = run.encoder.tokenizer.tokens(
        graph.x.to(run.device), edges.to(run.device), ptr.to(run.device), items.to(run.device)
    )
    with frozen(run.model):
        hidden, never, whole = (
            run.model.encode(tokens, plans).latent["node"]
            for tokens, plans in ((batch.tokens, batch.plans), (without, None), (batch.tokens, None))
        )
    return torch.equal(hidden, never) and not torch.equal(hidden, whole)


def _edges(run: Run, batch: Batch) -> tuple[Tensor, Tensor]:
    """Hidden edges, both ways, and those that the encoder gets but for self-loops: source x nodes + target."""
    edge, size = batch.tokens["edge"], len(batch.tokens["node"])
    assert edge.ends is not None
    a, b = edge.ends[:, batch.plans["edge"].hidden]
    with frozen(run.model):
        encoded = run.model.encode(batch.tokens, batch.plans)
    source, target = encoded.seen["node"].relations["edges"].edge_index
    between = source != target
    return torch.cat([a * size + b, b * size + a]), (source * size + target)[between]
