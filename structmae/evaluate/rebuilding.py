"""How each kind of head is scored on held-out items: values, ids, codes, and others by their loss."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from structmae.evaluate.counts import STRENGTHS, Counts, Places, by_place
from structmae.masking import VALIDATION, Act
from structmae.masking.torch import TorchPlan
from structmae.model import Batch, Head
from structmae.nn.base import Encoded
from structmae.nn.sequence import SequenceEncoder
from structmae.planning import Planner
from structmae.tokens import TokenSet

ENOUGH = 20_000  # validation places that choose how much the pairs count
ARMS = ("pretrained", "random_init")


@dataclass(frozen=True, eq=False)
class Held:
    """The items of a source by part: `rows` are what its `at` takes. `size` items make a batch."""

    encoder: SequenceEncoder
    source: Any
    planner: Planner
    rows: Mapping[str, Tensor]
    size: int

    def training(self) -> Iterator[dict[str, TokenSet]]:
        """The training items, nothing hidden."""
        for rows in torch.split(self.rows["train"], self.size):
            yield self.encoder.prepare(self.source.at(rows), None)

    def batches(self, part: str) -> Iterator[Batch]:
        """The items of a part, hidden as in training, by the plan that is validation's."""
        source = copy(self.source)
        source.rows = self.rows[part]
        for step, items in enumerate(torch.split(torch.arange(len(source.rows)), self.size)):
            yield self.planner.batch(source, items, visit=VALIDATION, step=step)

    def shares(self) -> dict[str, float]:
        """What stands at the scored places of all items, of any part, by the same plan: the share of each act."""
        counts = np.zeros(len(Act), np.int64)
        for step, tokens in enumerate(self.source.sweep(self.size)):
            plan = next(iter(self.planner.draw(tokens, visit=VALIDATION, step=step).values()))
            counts += np.bincount(plan.plan.act, minlength=len(Act))
        return {act.name.lower(): float(counts[act] / counts.sum()) for act in Act if counts[act]}


@dataclass(frozen=True, eq=False)
class Asked:
    """What a head is asked about in a batch: the tokens `rows` of `part`, and what each arm's model says, once for each
    decoding."""

    part: TokenSet
    plan: TorchPlan
    rows: Tensor
    target: Tensor
    observed: Tensor | None
    said: dict[str, list[Tensor]]


class Scorer(ABC):
    """Adds up over batches; `row` is what the evaluation says."""

    def __init__(self, head: Head, held: Held):
        self.head, self.held = head, held
        self.count = 0

    @abstractmethod
    def row(self) -> dict[str, Any]:
        """The row of the head, once all are added."""


class Tokenwise(Scorer):
    """A score of what is said of each token, which counting or averaging over the training items can say as well."""

    @abstractmethod
    def add(self, asked: Asked) -> None:
        """One batch of the test items."""

    def everywhere(self) -> Iterator[tuple[TokenSet, Tensor, Tensor, Tensor | None]]:
        """Of the training items all tokens that the head may be asked about, and its target."""
        for tokens in self.held.training():
            encoded = Encoded({}, tokens, tokens, {})
            part = tokens[self.head.options.of]
            rows = torch.arange(len(part), device=part.ptr.device)
            if self.head.kind is not None and part.kind is not None:
                rows = rows[part.kind == self.head.kind]
            rows = rows if part.valid is None else rows[part.valid[rows]]
            target, observed = self.head.target(encoded, {}, rows)
            yield part, rows, target, observed


class Values(Tokenwise):
    """The squared error, beside the mean over the training items of each value at its place."""

    def __init__(self, head: Head, held: Held):
        super().__init__(head, held)
        self.errors = dict.fromkeys((*ARMS, "position_mean"), 0.0)
        size = (held.encoder.size * max(1, len(held.encoder.kinds)), head.target.width)
        total, count = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
        for part, rows, target, observed in self.everywhere():
            place, there = self._place(part, rows), torch.ones_like(target) if observed is None else observed
            total.index_add_(0, place, (target * there).double().cpu())
            count.index_add_(0, place, there.double().cpu())
        self.mean = (total / count.clamp_min(1)).float().to(held.source.device)

    def _place(self, part: TokenSet, rows: Tensor) -> Tensor:
        assert part.position is not None
        kind = 0 if part.kind is None else part.kind[rows]
        return (part.position[rows] + kind * self.held.encoder.size).cpu()

    def add(self, asked: Asked) -> None:
        means = self.mean[self._place(asked.part, asked.rows).to(self.mean.device)]
        for name, said in {**asked.said, "position_mean": [means]}.items():
            self.errors[name] += sum(squared(out, asked.target, asked.observed) for out in said) / len(said)
        self.count += asked.target.numel() if asked.observed is None else int(asked.observed.sum())

    def row(self) -> dict[str, Any]:
        mse = {name: error / max(1, self.count) for name, error in self.errors.items()}
        ratio = mse["pretrained"] / mse["position_mean"] if mse["position_mean"] else None
        return {
            "metric": "mse",
            "better": "lower",
            "value": mse.pop("pretrained"),
            **mse,
            "ratio": ratio,
            "n": self.count,
        }


def squared(prediction: Tensor, target: Tensor, observed: Tensor | None) -> float:
    """The sum of squared errors over what was observed."""
    error = (prediction - target).square()
    return float((error if observed is None else error.where(observed, 0.0)).sum(dtype=torch.float64))


@dataclass
class Hits:
    """Sums of an arm: of places where the likeliest class is right, of those that are masked too, and of bits."""

    right: float = 0.0
    masked: float = 0.0
    bits: float = 0.0


class Classes(Tokenwise):
    """The accuracy, and the mean bits of the true class."""

    def __init__(self, head: Head, held: Held):
        super().__init__(head, held)
        self.hits = {arm: Hits() for arm in ARMS}
        self.masked = 0  # places where a mask stands: neither another token's content nor the own

    def add(self, asked: Asked) -> None:
        masked = self._masked(asked)
        for arm, said in asked.said.items():
            for out in said:
                hit = out.argmax(1) == asked.target
                self.hits[arm].right += int(hit.sum()) / len(said)
                self.hits[arm].masked += int((hit & masked).sum()) / len(said)
                nats = F.cross_entropy(out.float(), asked.target, reduction="none").sum(dtype=torch.float64)
                self.hits[arm].bits += float(nats) / np.log(2) / len(said)
        self.count += len(asked.target)
        self.masked += int(masked.sum())

    def _masked(self, asked: Asked) -> Tensor:
        code = asked.plan.code[asked.rows]
        return (code <= int(Act.ZERO)) & (code != int(Act.RANDOM))

    def accuracy(self, arm: str) -> float:
        return self.hits[arm].right / max(1, self.count)

    def bits(self, arm: str) -> float:
        return float(self.hits[arm].bits / max(1, self.count))


class Ids(Classes):
    """Ids that are hidden: beside the commonest training id, and what both neighbours say by the training pairs. The
    weight of the unigrams in these is chosen on the validation items."""

    def __init__(self, head: Head, held: Held):
        super().__init__(head, held)
        sets = (tokens[head.options.of] for tokens in held.training())
        self.counts = Counts.of(sets, held.encoder.vocabulary)
        self.places: list[Places] = []
        self.flags: list[Tensor] = []

    def add(self, asked: Asked) -> None:
        super().add(asked)
        self.places.append(self._places(asked.part, asked.plan, asked.rows))
        self.flags.append(self._masked(asked).cpu())

    def _places(self, part: TokenSet, plan: TorchPlan, rows: Tensor) -> Places:
        return Places.of(part, rows.cpu().numpy(), plan.plan.visible)

    def strength(self) -> float:
        """By the accuracy on validation; of equals the one that takes fewer bits."""
        found = []
        for batch in self.held.batches("validation"):
            rows = self.head.query(Encoded({}, batch.tokens, batch.tokens, {}), batch.plans)
            found.append(self._places(batch.tokens[self.head.options.of], batch.plans[self.head.options.of], rows))
        if not sum(len(each.truth) for each in found):
            return STRENGTHS[len(STRENGTHS) // 2]
        places = Places.joined(found).where(slice(ENOUGH))
        said = {strength: self.counts.between(places, strength) for strength in STRENGTHS}
        return max(STRENGTHS, key=lambda strength: (said[strength].accuracy, -said[strength].bits))

    def row(self) -> dict[str, Any]:
        places, strength = Places.joined(self.places), self.strength()
        unigram, bigram = self.counts.alone(places), self.counts.between(places, strength)
        found = {
            "metric": "accuracy",
            "better": "higher",
            "value": self.accuracy("pretrained"),
            "random_init": self.accuracy("random_init"),
            "unigram": unigram.accuracy,
            "bigram": bigram.accuracy,
            "bits": {**{arm: self.bits(arm) for arm in ARMS}, "unigram": unigram.bits, "bigram": bigram.bits},
            "bigram_strength": strength,
            "n": self.count,
            "shares": self.held.shares(),
        }
        if 0 < self.masked < self.count:
            some = places.where(torch.cat(self.flags).numpy())
            found["masked"] = {
                **{arm: self.hits[arm].masked / self.masked for arm in ARMS},
                "unigram": self.counts.alone(some).accuracy,
                "bigram": self.counts.between(some, strength).accuracy,
                "n": self.masked,
            }
        return found


class Next(Ids):
    """Ids, each told from those before it: bits, beside three ways to count."""

    def row(self) -> dict[str, Any]:
        places = Places.joined(self.places)
        sets = (tokens[self.head.options.of] for tokens in self.held.training())
        return {
            "metric": "bits",
            "better": "lower",
            "value": self.bits("pretrained"),
            "random_init": self.bits("random_init"),
            "unigram": self.counts.alone(places).bits,
            "previous": self.counts.previous(places).bits,
            "position": by_place(sets, self.held.encoder.vocabulary, places).bits,
            "accuracy": self.accuracy("pretrained"),
            "n": self.count,
        }


class Codes(Classes):
    """Codes, beside the commonest one of the training items."""

    def __init__(self, head: Head, held: Held):
        super().__init__(head, held)
        self.single = torch.ones(head.target.width, dtype=torch.float64)  # add-one
        for _, _, target, _ in self.everywhere():
            self.single += torch.bincount(target.cpu(), minlength=len(self.single))
        self.truth = torch.zeros_like(self.single)

    def add(self, asked: Asked) -> None:
        super().add(asked)
        self.truth += torch.bincount(asked.target.cpu(), minlength=len(self.truth))

    def row(self) -> dict[str, Any]:
        shares, count = self.single / self.single.sum(), max(1, self.count)
        bits = {arm: self.bits(arm) for arm in ARMS}
        return {
            "metric": "accuracy",
            "better": "higher",
            "value": self.accuracy("pretrained"),
            "random_init": self.accuracy("random_init"),
            "unigram": float(self.truth[self.single.argmax()] / count),
            "bits": {**bits, "unigram": float(-(self.truth * shares.log2()).sum() / count)},
            "n": self.count,
        }


class Losses(Scorer):
    """A head's own loss: of what another view made of the same tokens, there is nothing to compare it with."""

    def __init__(self, head: Head, held: Held):
        super().__init__(head, held)
        self.losses = dict.fromkeys(ARMS, 0.0)

    def lost(self, losses: Mapping[str, Tensor], items: int) -> None:
        """The mean losses of a batch, by arm."""
        for arm, loss in losses.items():
            self.losses[arm] += float(loss) * items
        self.count += items

    def row(self) -> dict[str, Any]:
        value, other = (self.losses[arm] / max(1, self.count) for arm in ARMS)
        return {"metric": "loss", "better": "lower", "value": value, "random_init": other, "n": self.count}


def scorer(head: Head, held: Held) -> Scorer:
    """The one for a head's target."""
    kinds: dict[str, type[Scorer]] = {"values": Values, "code": Codes, "ids": Ids}
    if head.options.target == "ids" and held.encoder.start is not None:  # the input is shifted
        return Next(head, held)
    return kinds.get(head.options.target, Losses)(head, held)
