"""Several aligned maps: what the others are worth to a map that is rebuilt."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from structmae.evaluate.rebuilding import Held, squared
from structmae.masking import VALIDATION, Act
from structmae.masking.strategies import ABSENT, UNTOUCHED
from structmae.masking.torch import TorchPlan
from structmae.model import Head, MaskedAutoencoder
from structmae.recipe import Recipe
from structmae.tokens import TokenSet

Tokens = dict[str, TokenSet]


def of_maps(model: MaskedAutoencoder, held: Held, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """For each head that rebuilds the values of one of several maps, its squared error on the test images three times.

    alone: the other maps are not there, and of its own what validation's plan hides is hidden. together: the same is
    hidden, of the others nothing. Both are of images of which the plan leaves something of the map (`n_alone` values).
    from_others: all of its own is hidden, of the others nothing.
    """
    heads = {
        name: head
        for name, head in model.heads.items()
        if isinstance(head, Head) and head.kind is not None and head.options.target == "values"
    }
    if not heads or recipe.mask.random > 0:  # content of other places has no meaning where these are gone
        return {}
    errors = {name: np.zeros((3, 2)) for name in heads}
    act = int(Act[recipe.mask.act.upper()])
    for step, rows in enumerate(torch.split(held.rows["test"], held.size)):
        tokens = held.source.at(rows)
        drawn = held.planner.draw(tokens, visit=VALIDATION, step=step)["patch"]
        for name, head in heads.items():
            part = tokens["patch"]
            assert part.kind is not None
            assert head.kind is not None
            mine = (part.kind == head.kind).cpu().numpy()
            code, absent = drawn.plan.code, drawn.plan.code == ABSENT
            others = np.where(absent, ABSENT, UNTOUCHED)
            cases = (
                (_only(held, rows, head.kind), np.where(mine, code, ABSENT), True),
                (tokens, np.where(mine, code, others), True),
                (tokens, np.where(mine & ~absent, act, others), False),
            )
            for case, (seen, codes, readable) in enumerate(cases):
                plan = TorchPlan(replace(drawn.plan, code=codes.astype(np.uint8)), held.source.device)
                errors[name][case] += _error(model, name, seen, plan, readable)
    found = {}
    for name, sums in errors.items():
        alone, together, from_others = (float(total / max(1.0, count)) for total, count in sums)
        found[name] = {"alone": alone, "together": together, "from_others": from_others, "n_alone": int(sums[0, 1])}
    return found


def _only(held: Held, rows: Tensor, kind: int) -> Tokens:
    """The tokens of images of which one map alone was observed."""
    tokenizer = held.source.tokenizer
    first = sum(channels for _, channels in tokenizer.maps[:kind])
    x = torch.full_like(held.source.images.x[rows], float("nan"))
    own = slice(first, first + tokenizer.maps[kind][1])
    x[:, own] = held.source.images.x[rows][:, own]
    x = x.to(held.source.device)
    tokens: Tokens = tokenizer.tokens(tokenizer.normalize(x), ~x.isnan(), rows)
    return tokens


def _error(model: MaskedAutoencoder, name: str, tokens: Tokens, plan: TorchPlan, readable: bool) -> tuple[float, int]:
    """Summed squared error of a head, and of how many values; with `readable` of the images of whose map the encoder
    sees something."""
    plans: Mapping[str, TorchPlan] = {"patch": plan}
    encoded: Any = model.encode(tokens, plans)
    head: Any = model.heads[name]
    part = encoded.tokens["patch"]
    rows = head.query(encoded, plans)
    if readable:
        visible = plan.visible[part.kind[plan.visible] == head.kind]
        there = torch.bincount(part.batch[visible], minlength=len(part.item_id)) > 0
        rows = rows[there[part.batch[rows]]]
    if not len(rows):
        return 0.0, 0
    target, observed = head.target(encoded, {}, rows)
    zeroed = plan.hidden if head.options.remask == "hidden" else None
    count = target.numel() if observed is None else int(observed.sum())
    return squared(head.decoder(encoded, rows, zeroed), target, observed), count
