"""What masking.py times: each work by structmae and by an alternative, on the same data. masking_graphs.py has more.

A work has `setup` (once, not counted, its seconds kept), `ours` and `other` (timed), and `check`, which raises WrongJob
where one of the two does another job.
"""

import random
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from structmae.errors import StructmaeError
from structmae.masking import Layout, Plan, Spec, count, draw, layout, to_torch
from structmae.masking.adjacency import grid
from structmae.masking.groups import tube
from structmae.masking.strategies import Act
from structmae.masking.torch import apply, take

Ints = NDArray[np.int64]


class WrongJob(StructmaeError):
    """One of the two did not do what was asked for."""


class Absent(StructmaeError):
    """The alternative is not installed."""


def must(right: Any, what: str) -> None:
    if not right:
        raise WrongJob(what)


@dataclass
class Work:
    """`at` and `spec` are set by setup; `moved` is the least number of bytes that its inputs and outputs take."""

    shape: tuple[int, ...]
    setups: dict[str, float] = field(default_factory=dict)  # seconds of what is done once
    at: Layout = field(init=False)
    spec: Spec = field(init=False)
    moved: int = field(init=False)

    name: ClassVar[str]
    against: ClassVar[str]
    target: ClassVar[float | None] = None  # of the ratio at 1 thread
    aim: ClassVar[float | None] = None
    large: ClassVar[bool] = False  # two threads should be 1.6 times as fast

    @property
    def size(self) -> str:
        return " x ".join(map(str, self.shape))

    def setup(self) -> None: ...
    def ours(self, visit: int) -> Any: ...
    def other(self) -> Any: ...
    def check(self) -> None: ...

    def plan(self, visit: int) -> Plan:
        return draw(self.at, self.spec, seed=0, visit=visit)

    @contextmanager
    def once(self, what: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.setups[what] = time.perf_counter() - begin


def about(share: float, wanted: float, n: int, what: str) -> None:
    """Checks a share that is right on average only; runs of 3 have some twice the deviation of coin tosses."""
    must(abs(share - wanted) < 5 / n**0.5, f"{what}: {share:.4f}, not about {wanted}")


def rounded(n: int) -> str:
    """1e6 for a million."""
    digits = len(str(n)) - 1
    return f"1e{digits}" if n == 10**digits else str(n)


@dataclass
class MaeIndices(Work):
    """What an MAE needs each step: visible, hidden and restore indices of 75% uniform DROP."""

    name = "mae_indices"
    against = "torch.rand().argsort().argsort()"
    target, aim = 12.0, 20.0

    @property
    def size(self) -> str:
        return "N={} x L={} x {}".format(*self.shape)

    def setup(self) -> None:
        items, length, _ = self.shape
        self.spec, self.shown = Spec(ratio=0.75, act="drop"), length - count(0.75, length)
        with self.once("layout"):
            self.at = layout(np.arange(items + 1) * length)
        self.moved = 2 * 8 * items * length  # each token in one of two index arrays, and in restore

    def ours(self, visit: int) -> tuple[Tensor, ...]:
        plan = to_torch(self.plan(visit))
        return plan.visible, plan.hidden, plan.restore

    def other(self) -> tuple[Tensor, ...]:
        order = torch.rand(self.shape[:2]).argsort(1)
        return order[:, : self.shown], order[:, self.shown :], order.argsort(1)

    def check(self) -> None:
        items, length, _ = self.shape
        visible, hidden, restore = (part.numpy() for part in self.ours(0)[:3])
        must((np.bincount(hidden // length, minlength=items) == length - self.shown).all(), "ours: count of an item")
        must((np.sort(np.concatenate([visible, hidden])) == np.arange(self.at.size)).all(), "ours: a partition")
        back = np.append(visible, -1)[restore]  # -1 is the mask token
        must((np.delete(back, hidden) == visible).all() and (back[hidden] == -1).all(), "ours: restore")
        visible, hidden, restore = self.other()[:3]
        must(hidden.shape == (items, length - self.shown), "other: count of an item")
        must((torch.cat([visible, hidden], 1).gather(1, restore) == torch.arange(length)).all(), "other: restore")


@dataclass
class MaeGather(MaeIndices):
    """The same, and the visible tokens themselves."""

    name = "mae_gather"
    against = "the same, torch.gather"
    target, aim = 5.0, None
    large = True

    def setup(self) -> None:
        super().setup()
        self.x = torch.randn(self.shape)
        self.flat = self.x.reshape(-1, self.shape[2])
        self.moved += 2 * 4 * self.shape[0] * self.shown * self.shape[2]

    def ours(self, visit: int) -> tuple[Tensor, ...]:
        visible, hidden, restore = super().ours(visit)
        return visible, hidden, restore, take(self.flat, visible)

    def other(self) -> tuple[Tensor, ...]:
        visible, hidden, restore = super().other()
        index = visible.unsqueeze(-1).expand(-1, -1, self.shape[2])
        return visible, hidden, restore, self.x.gather(1, index)

    def check(self) -> None:
        super().check()
        visible, *_, rows = self.ours(0)
        must(torch.equal(rows, self.flat[visible]), "ours: rows")
        visible, *_, rows = self.other()
        must(torch.equal(rows, self.x[torch.arange(len(rows))[:, None], visible]), "other: rows")


@dataclass
class Spans(Work):
    """A torch bool mask of half the steps, in runs of 3 on average."""

    name = "spans"
    against = "tsai create_subsequence_mask"
    target = 10.0

    @property
    def large(self) -> bool:  # type: ignore[override]
        return int(np.prod(self.shape)) > 1_000_000

    @property
    def size(self) -> str:
        return str(self.shape)

    def setup(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from tsai.callback.MVP import create_subsequence_mask
        except ImportError as error:
            raise Absent(f"needs tsai, and {error}") from None
        self.mask = create_subsequence_mask
        items, series, length = self.shape
        self.spec, self.x = Spec(strategy="span", length=3, ratio=0.5), torch.zeros(self.shape)
        with self.once("layout"):
            self.at = layout(np.arange(items * series + 1) * length)
        self.moved = self.at.size

    def ours(self, visit: int) -> Tensor:
        code = self.plan(visit).code.reshape(self.shape)
        return torch.from_numpy(
            np.less_equal(code, np.uint8(Act.ZERO), out=code.view(bool))
        )  # in the plan's own memory

    def other(self) -> Tensor:
        mask: Tensor = self.mask(self.x, r=0.5, lm=3)
        return mask

    def check(self) -> None:
        for whose, mask in (("ours", self.ours(0)), ("other", self.other())):
            must(mask.shape == self.shape and mask.dtype is torch.bool, f"{whose}: a mask of {self.shape}")
            starts = int(mask[..., 0].sum() + (mask[..., 1:] & ~mask[..., :-1]).sum())
            must(abs(int(mask.sum()) / starts - 3) < 0.5, f"{whose}: runs of 3")
            if whose == "ours":
                must((mask.sum(-1) == count(0.5, self.shape[2])).all(), "ours: count of a series")
            else:
                about(mask.float().mean().item(), 0.5, mask.numel(), "other: share")


@dataclass
class NodeNoise(Work):
    """GraphMAE's corruption of node features: half hidden, nine tenths of them by a token, the rest by other nodes."""

    name = "node_noise"
    against = "GraphMAE's randperm way"
    target = 4.0
    large = True

    @property
    def size(self) -> str:
        return f"{rounded(self.shape[0])} x {self.shape[1]}"

    def setup(self) -> None:
        nodes, width = self.shape
        self.x, self.token = torch.randn(self.shape), torch.full((1, width), 7.0, requires_grad=True)
        self.spec = Spec(ratio=0.5, act="token", random=0.1)
        with self.once("layout"):
            self.at = layout([0, nodes])
        self.tokens = int(0.9 * count(0.5, nodes))
        self.moved = 4 * width * (nodes + nodes - self.tokens)  # what the token replaces is not read

    def ours(self, visit: int) -> Tensor:
        return apply(self.x, to_torch(self.plan(visit)), self.token)

    def other(self) -> Tensor:
        nodes = len(self.x)
        hidden = torch.randperm(nodes)[: nodes // 2]
        order = torch.randperm(len(hidden))
        token, noise = hidden[order[: self.tokens]], hidden[order[self.tokens :]]
        out = self.x.clone()
        out[token] = 0.0
        out[noise] = self.x[torch.randperm(nodes)[: len(noise)]]
        out[token] += self.token
        return out

    def check(self) -> None:
        known = self.x[:, :2].contiguous().view(torch.int64).flatten()
        for whose, out in (("ours", self.ours(0)), ("other", self.other())):
            token = (out == self.token).all(1)
            changed = (out != self.x).any(1) & ~token
            noise = count(0.5, len(out)) - self.tokens
            # One may be given itself, and ours rounds a share up or down.
            must(abs(int(token.sum()) - self.tokens) <= 1, f"{whose}: count of tokens")
            must(noise - 3 <= int(changed.sum()) <= noise + 1, f"{whose}: count replaced")
            found = out.detach()[changed, :2].contiguous().view(torch.int64).flatten()
            must(torch.isin(found, known).all(), f"{whose}: replaced by rows of x")


@dataclass
class Tube(Work):
    """Patches of a video hidden through time, 90% of them: visible and hidden indices."""

    name = "tube"
    against = "vectorised NumPy"

    @property
    def size(self) -> str:
        return "{1}x{2}x{3} at 90%, {0} samples".format(*self.shape)

    def setup(self) -> None:
        items, frames, *place = self.shape
        self.places, self.rng = int(np.prod(place)), np.random.default_rng(0)
        self.spec, self.shown = Spec(ratio=0.9, act="drop"), self.places - count(0.9, self.places)
        length = frames * self.places
        with self.once("layout"):
            self.at = layout(np.arange(items + 1) * length, group=tube(self.shape[1:], items))
            _ = self.at.units
        self.base = np.arange(items)[:, None, None] * length + np.arange(frames)[:, None] * self.places
        self.moved = 8 * self.at.size

    def ours(self, visit: int) -> tuple[Ints, Ints]:
        plan = self.plan(visit)
        return plan.visible, plan.hidden

    def other(self) -> tuple[Ints, Ints]:
        rank = self.rng.random((self.shape[0], self.places), np.float32)
        order = rank.argpartition(self.shown, 1)[:, None]
        visible, hidden = self.base + order[..., : self.shown], self.base + order[..., self.shown :]
        return visible.ravel(), hidden.ravel()

    def check(self) -> None:
        for whose, (visible, hidden) in (("ours", self.ours(0)), ("other", self.other())):
            must((np.sort(np.concatenate([visible, hidden])) == np.arange(self.at.size)).all(), f"{whose}: a partition")
            seen = np.isin(np.arange(self.at.size), visible).reshape(*self.shape[:2], -1)
            must((seen == seen[:, :1]).all(), f"{whose}: through time")
            must((seen[:, 0].sum(1) == self.shown).all(), f"{whose}: count")


@dataclass
class Block(Work):
    """Half of an image hidden, in one connected block grown from a random patch: a mask."""

    name = "block"
    against = "per-sample Python"

    @property
    def size(self) -> str:
        return "{1}x{2}, {0} samples".format(*self.shape)

    def setup(self) -> None:
        items, height, width = self.shape
        self.spec, self.hide = Spec(strategy="block", ratio=0.5), count(0.5, height * width)
        with self.once("layout, topology"):
            self.at = layout(np.arange(items + 1) * height * width, adjacency=grid((height, width), items))
            _ = self.at.topology
        one = grid((height, width))
        self.near = [one.place[a:b].tolist() for a, b in zip(one.ptr[:-1], one.ptr[1:], strict=True)]
        self.moved = self.at.size

    def ours(self, visit: int) -> NDArray[np.bool_]:
        hidden: NDArray[np.bool_] = self.plan(visit).code.reshape(self.shape) <= np.uint8(Act.ZERO)
        return hidden

    def other(self) -> NDArray[np.bool_]:
        out, near, hide = np.zeros((len(self.at.ptr) - 1, len(self.near)), bool), self.near, self.hide
        for row in out:
            shell = [random.randrange(len(near))]
            seen, block = set(shell), []
            while len(block) + len(shell) < hide:
                block += shell
                reached = {v for u in shell for v in near[u]} - seen
                seen |= reached
                shell = list(reached)
            row[block + random.sample(shell, hide - len(block))] = True
        return out.reshape(self.shape)

    def check(self) -> None:
        for whose, mask in (("ours", self.ours(0)), ("other", self.other())):
            must((mask.sum((1, 2)) == self.hide).all(), f"{whose}: count")
            must(all(ndimage.label(image)[1] == 1 for image in mask), f"{whose}: one connected block")
