"""What is hidden in a step: the plans of a batch, of its views and re-masks, and the pairs that are no edges."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from structmae import masking
from structmae.masking.torch import TorchPlan, to_torch
from structmae.model import Batch, View
from structmae.recipe import HeadOptions, MaskOptions, Recipe, ViewOptions
from structmae.tokens import Source, TokenSet

Tokens = dict[str, TokenSet]


class Planner:
    """Draws the plan of each token set; the set-up that a set needs is kept for as long as the set lives.

    `mask` is of the first set, or of edges where it says so; edges beside hidden tokens are hidden as mask.edge_ratio,
    edge_act and edge_strategy say, and of other sets nothing is. With a curriculum, ratio and power move from the first
    epoch's to the last's.
    """

    def __init__(
        self,
        mask: MaskOptions,
        seed: int,
        *,
        epochs: int = 1,
        heads: Mapping[str, HeadOptions] | None = None,
        views: Mapping[str, ViewOptions] | None = None,
    ):
        self.seed, self.epochs, self.mask = seed, epochs, mask
        shared = {field.name: getattr(mask, field.name) for field in fields(masking.Spec)}
        self.spec = masking.Spec(**shared)
        self.edges = replace(self.spec, strategy=mask.edge_strategy, ratio=mask.edge_ratio)
        if mask.edge_act == "drop":
            self.edges = replace(self.edges, act="drop", random=0.0, keep=0.0)
        self.curriculum: masking.Curriculum | None = None
        if mask.curriculum != "none":
            self.curriculum = masking.Curriculum(
                ratio=(mask.ratio_first, mask.ratio), power=(mask.power_first, mask.power), shape=mask.curriculum
            )
        self.heads = {name: head for name, head in (heads or {}).items() if head.remask == "random"}
        self.pairs = any(head.of == "pair" for head in (heads or {}).values())
        self.views = views or {}
        self._layouts: WeakKeyDictionary[TokenSet, masking.Layout] = WeakKeyDictionary()
        self._edges: WeakKeyDictionary[TokenSet, masking.Edges] = WeakKeyDictionary()

    @classmethod
    def of(cls, recipe: Recipe) -> "Planner":
        """As the recipe trains."""
        train = recipe.train
        return cls(recipe.mask, train.seed, epochs=train.epochs, heads=recipe.heads, views=recipe.reads())

    def batch(self, source: Source, items: torch.Tensor, *, visit: int, step: int) -> Batch:
        """All that a step reads of `items`."""
        tokens = source.batch(items)
        plans = self.draw(tokens, visit=visit, step=step)
        views = {
            name: self._view(number, view, source, items, tokens, visit, step)
            for number, (name, view) in enumerate(self.views.items(), 1)
        }
        negatives = self.negatives(tokens, plans["edge"], visit=visit) if self.pairs else None
        remasks = self.redraw(tokens, visit=visit, step=step)
        return Batch(tokens, plans, remasks, source.target(items), views, negatives)

    def _view(
        self, number: int, view: ViewOptions, source: Any, items: torch.Tensor, tokens: Tokens, visit: int, step: int
    ) -> View:
        if view.augment != "none":
            key = {"seed": self.seed, "visit": visit, "view": number}
            tokens = source.augmented(items, view.augment, view.amount, **key)
        whole = view.plan == "whole"
        return View(tokens, {} if whole else self.draw(tokens, visit=visit, step=step, view=number))

    def draw(self, tokens: Tokens, *, visit: int, step: int, view: int = 0) -> dict[str, TorchPlan]:
        """A plan for each set: the same for an item whatever batch it comes in (scope batch aside)."""
        main = self.spec
        if self.curriculum is not None:
            main = self.curriculum.at(main, masking.curriculum.progress(min(visit, self.epochs - 1), self.epochs))
        of_edges = self.mask.of == "edge"
        plans = {}
        for index, (name, part) in enumerate(tokens.items()):
            spec = main if of_edges == (name == "edge") else masking.Spec(ratio=0.0) if of_edges else self.edges
            key: dict[str, Any] = {"seed": self.seed, "visit": visit, "token_set": index, "step": step, "view": view}
            plans[name] = to_torch(masking.draw(self._layout(part, tokens), spec, **key), device=part.values.device)
        return plans

    def redraw(self, tokens: Tokens, *, visit: int, step: int) -> dict[str, list[TorchPlan]]:
        """For each head that re-masks at random, `remask_draws` plans of the tokens (of the first set, which has
        latents) that its decoder is not given."""
        main, plans, first = next(iter(tokens.values())), {}, 0
        for name, head in self.heads.items():
            spec = masking.Spec(ratio=head.remask_ratio, act="zero")
            key: dict[str, Any] = {"seed": self.seed, "visit": visit, "step": step, "purpose": masking.Purpose.REMASK}
            numbers = range(first, first + head.remask_draws)
            first += head.remask_draws
            drawn = [masking.draw(self._layout(main, tokens), spec, draw=number, **key) for number in numbers]
            plans[name] = [to_torch(plan, device=main.values.device) for plan in drawn]
        return plans

    def negatives(self, tokens: Tokens, plan: TorchPlan, *, visit: int) -> torch.Tensor:
        """(2, n) pairs of nodes that are no edges: in each graph as many as are hidden, as far as there are any."""
        edges = self._pairs(tokens["edge"], tokens["node"])
        found = edges.negatives(plan.plan, seed=self.seed, visit=visit)
        return torch.from_numpy(found).to(tokens["edge"].values.device)

    def _pairs(self, part: TokenSet, nodes: TokenSet) -> masking.Edges:
        """Edge tokens as the masking layer knows them: in the same order."""
        if part not in self._edges:
            assert part.ends is not None
            ends = part.ends.cpu().numpy()
            item_id = part.item_id.cpu().numpy()
            undirected = bool((ends[0] <= ends[1]).all())
            self._edges[part] = masking.edges(ends, ptr=nodes.ptr.cpu().numpy(), item_id=item_id, undirected=undirected)
        return self._edges[part]

    def _layout(self, part: TokenSet, tokens: Tokens) -> masking.Layout:
        if part not in self._layouts:
            surroundings = _surroundings(part, self.mask)
            if part.ends is not None and (self.mask.of == "edge" or self.mask.edge_strategy != "uniform"):
                surroundings = {"adjacency": lambda: self._pairs(part, tokens["node"]).layout.adjacency}
            by_kind = self.mask.exact == "kind" or self.mask.strategy == "dirichlet"
            self._layouts[part] = masking.layout(
                part.ptr.cpu().numpy(),
                item_id=part.item_id.cpu().numpy(),
                valid=None if part.valid is None else part.valid.cpu().numpy(),
                group=_groups(part, self.mask),
                stratum=part.kind.cpu().numpy() if by_kind and part.kind is not None else None,
                set_id=None if part.set_id is None else part.set_id.cpu().numpy(),
                **surroundings,
            )
        return self._layouts[part]


def _groups(part: TokenSet, mask: MaskOptions) -> Any:
    """What is hidden together."""
    if part.ends is not None:  # where a pair's two directions are tokens of their own, they are hidden together still
        return masking.undirected(part.ends.cpu().numpy())
    if part.grid is None or mask.group == "token":
        return None
    items = len(part.item_id)
    if mask.group == "cell":
        return masking.cell(part.grid, items=items)
    return masking.strip(part.grid, axis=-2 if mask.group == "row" else -1, items=items)


def _surroundings(part: TokenSet, mask: MaskOptions) -> dict[str, Any]:
    """What the strategy looks at: neighbours, or weights."""
    if mask.strategy == "weighted" and mask.weights == "variance":
        observed = None if part.observed is None else part.observed.cpu().numpy()
        return {"weight": masking.variance(part.values.cpu().numpy(), observed)}
    if part.grid is not None and mask.strategy == "rectangle":
        return {"shape": part.grid}
    if part.grid is not None and mask.strategy in ("block", "walk"):
        return {"adjacency": masking.grid(part.grid, items=len(part.item_id))}
    if not part.relations:
        return {}
    relation, ptr = part.relations["edges"], part.ptr.cpu().numpy()
    edge_index = relation.edge_index.cpu().numpy()
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]  # the layers' self-loops lead nowhere
    if mask.strategy in ("block", "walk"):
        indptr = np.append(0, np.cumsum(np.bincount(edge_index[1], minlength=len(part))))
        return {"adjacency": masking.adjacency(indptr, edge_index[0], ptr)}
    if mask.strategy != "weighted":
        return {}
    if mask.weights == "degree":
        return {"weight": masking.degree(edge_index, len(part))}
    return {"weight": masking.pagerank(edge_index, len(part), ptr=ptr)}
