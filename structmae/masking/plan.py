"""A plan: which tokens are hidden, scored and altered; and `draw`, which makes one from a layout, a spec and a key."""

import multiprocessing
import threading
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
from numpy.typing import NDArray

from structmae.errors import UsageError
from structmae.masking import kernels
from structmae.masking.layout import Ints, Layout, Units
from structmae.masking.rng import Purpose, stream, word
from structmae.masking.strategies import ABSENT, UNTOUCHED, Act, Spec, count, to_act

BIG = 100_000  # tokens below which starting threads costs more than it saves


@dataclass(frozen=True, eq=False)
class Plan:
    """Flat int64 positions into the M tokens of a layout, ascending. Each set is made when first read, then kept.

    Hidden, scored and altered are three sets: with `keep`, a token is scored though the encoder sees it.
    Borders of the items in any of them, `kept` say: `np.searchsorted(plan.kept, layout.ptr)`.
    """

    code: NDArray[np.uint8]  # (M,) each token's Act, or 5 valid and not chosen, or 6 not valid
    from_where: Ints | None  # `source` where any token may get RANDOM, else None
    seed: int  # the key it was drawn with
    stream: int
    visit: int

    @property
    def size(self) -> int:
        """How many tokens, M."""
        return len(self.code)

    @cached_property
    def scored(self) -> Ints:
        """(K,) chosen: the loss is taken here."""
        return self._range(Act.DROP, Act.KEEP)

    @cached_property
    def act(self) -> NDArray[np.uint8]:
        """(K,) what the encoder gets there: an Act."""
        return self.code[self.scored]

    @cached_property
    def source(self) -> Ints:
        """(K,) for RANDOM the token whose content stands there, else -1."""
        return np.full(len(self.scored), -1, np.int64) if self.from_where is None else self.from_where

    @cached_property
    def hidden(self) -> Ints:
        """(H,) chosen and not KEEP: the encoder cannot see their content."""
        return self._range(Act.DROP, Act.ZERO)

    @cached_property
    def visible(self) -> Ints:
        """(V,) valid and not hidden: the encoder sees their content."""
        return self._range(Act.KEEP, UNTOUCHED)

    @cached_property
    def kept(self) -> Ints:
        """(R,) valid and not DROP: the row that the encoder reads."""
        return self._range(Act.TOKEN, UNTOUCHED)

    @cached_property
    def restore(self) -> Ints:
        """(M,) each token's place in `kept`, or -1."""
        places: Ints = kernels.places(self.code, np.uint8(Act.TOKEN), np.uint8(UNTOUCHED))
        return places

    def with_act(self, act: Act) -> Ints:
        """(n,) the tokens that get `act`; their sources are `plan.source[plan.act == act]`."""
        return self._range(act, act)

    def _range(self, lo: int, hi: int) -> Ints:
        found: Ints = kernels.indices(self.code, np.uint8(lo), np.uint8(hi))
        return found

    def __repr__(self) -> str:
        valid = self.size - int((self.code == ABSENT).sum())
        acts = [f"{n} {Act(a).name}" for a, n in enumerate(np.bincount(self.act, minlength=len(Act))) if n]
        percent = f"{100 * len(self.hidden) / valid:.1f}" if valid else "0"
        return (
            f"Plan({self.size} tokens, {valid} valid, {percent}% hidden, {len(self.scored)} scored"
            f"{': ' if acts else ''}{', '.join(acts)}; seed {self.seed}, stream {self.stream:#x}, visit {self.visit})"
        )


@dataclass(frozen=True)
class _Key:
    """The key of a draw, in the kernels' dtypes."""

    seed: int
    visit: int
    view: int
    token_set: int
    draw: int
    purpose: Purpose

    def words(self, purpose: Purpose) -> tuple[np.uint64, np.uint64, np.uint64]:
        """visit, seed, stream: the last arguments of a ranking kernel."""
        # Shares, swaps and sources of a re-mask are its own: they have the upper half of the draw numbers.
        upper = self.purpose is Purpose.REMASK and purpose is not Purpose.REMASK
        which = stream(self.view, self.token_set, purpose, self.draw | upper << 15)
        return np.uint64(self.visit), np.uint64(self.seed), np.uint64(which)


def _threads(work: int) -> bool:
    """Whether a parallel kernel may run, and pays. Only the main thread may, in a process that multiprocessing did not
    start: the workqueue layer is not thread-safe, and GNU OpenMP aborts after a fork.
    """
    return (
        work > BIG
        and threading.current_thread() is threading.main_thread()
        and multiprocessing.parent_process() is None
        and numba.get_num_threads() > 1
    )


def _ranks(ptr: Ints, ids: Ints, words: tuple[np.uint64, np.uint64, np.uint64]) -> NDArray[np.uint32]:
    kernel = kernels.ranks_parallel if _threads(int(ptr[-1])) else kernels.ranks
    ranks: NDArray[np.uint32] = kernel(ptr, ids, *words)
    return ranks


def _unit_ranks(at: Layout, ids: Ints, key: _Key, purpose: Purpose) -> NDArray[np.uint32]:
    ranks = _ranks(at.ptr, ids, key.words(purpose))
    return ranks if at.units.lead is None else ranks[at.units.lead]


def _choose(at: Layout, ids: Ints, spec: Spec, key: _Key) -> NDArray[np.uint8]:
    """Codes (M,) of one draw over the items of `at`, whose names in it are `ids`."""
    units = at.units
    rest = to_act(spec.act)
    n = np.diff(units.ptr)
    k = count(spec.ratio, n)
    code: NDArray[np.uint8]
    if spec.ratio in (0.0, 1.0):  # nothing to choose
        code = np.full(int(units.ptr[-1]), rest if spec.ratio else UNTOUCHED, np.uint8)
    else:
        ranks = _unit_ranks(at, ids, key, key.purpose)
        args = (ranks, units.ptr, k, np.uint8(rest), np.uint8(UNTOUCHED))
        if len(k) > 1 and _threads(len(ranks)):
            code = kernels.select_parallel(*args, max(1, len(k) // 64))
        else:
            code = kernels.select(*args)
    if spec.random or spec.keep:
        first = kernels.ranks_at(ids[units.first_item], units.first_local, *key.words(Purpose.SHARE))
        ranks = _unit_ranks(at, ids, key, Purpose.SWAP)
        acts = np.array([rest, Act.KEEP, Act.RANDOM], np.uint8)
        kernels.swap(code, ranks, units.ptr, first, spec.random, spec.random + spec.keep, acts)
    return _spread(code, units, at.size)


def _spread(code: NDArray[np.uint8], units: Units, size: int) -> NDArray[np.uint8]:
    """Codes of units (U,) to codes of tokens (M,)."""
    if units.of is not None:
        return np.append(code, np.uint8(ABSENT))[units.of]  # -1 takes the last
    if units.lead is None:
        return code
    out = np.full(size, ABSENT, np.uint8)
    out[units.lead] = code
    return out


def draw(
    layout: Layout,
    spec: Spec,
    *,
    seed: int,
    visit: int,
    view: int = 0,
    token_set: int = 0,
    draw: int = 0,
    step: int | None = None,
    purpose: Purpose = Purpose.HIDE,
) -> Plan:
    """The plan of one draw: a function of (seed, stream, item id, visit), whatever else is in the batch.

    `visit` is the epoch, or VALIDATION. `step` is the global step, needed for scope "batch" alone. view, token_set,
    purpose and draw make the stream; a re-mask for the decoder is purpose REMASK. A RANDOM token that has no other
    token to take content from gets TOKEN. Above 1e5 tokens all of Numba's threads help, from the main thread; the plan
    is the same.

    Raises UsageError where a part of the key is out of range, or step or the layout's set_id is missing.
    """
    if purpose not in (Purpose.HIDE, Purpose.REMASK):
        raise UsageError(f"purpose = {purpose!r}: a plan is drawn for HIDE or REMASK; choose one of these")
    key = _Key(word("seed", seed), word("visit", visit), view, token_set, word("draw", draw, 15), purpose)
    if spec.scope == "item":
        ids = layout.item_id
        code = _choose(layout, ids, spec, key)
    else:
        shared = layout.batch if spec.scope == "batch" else layout.sets
        names = shared.model.item_id
        if spec.scope == "batch":
            if step is None:
                raise UsageError("step = None: scope 'batch' draws by the global step; give draw(..., step=...)")
            names = np.full(len(names), word("step", step, 63), np.int64)
        ids = names[shared.which]
        code = _choose(shared.model, names, spec, key)[shared.at]
        if layout.valid is not None:
            code[~layout.valid] = ABSENT
    source: Ints | None = None
    if spec.random or spec.act is Act.RANDOM:
        source = np.full(np.count_nonzero(code <= Act.KEEP), -1, np.int64)
        only = spec.random_from == "visible"
        kernels.sources(code, layout.ptr, ids, only, *key.words(Purpose.SOURCE), source)
    return Plan(code, source, key.seed, stream(view, token_set, purpose, draw), key.visit)


def permutation(n: int, *, seed: int, visit: int, view: int = 0, token_set: int = 0, draw: int = 0) -> Ints:
    """An order (n,) int64 of n items in an epoch: sorted by the rank that position has in item 0, purpose ORDER.

    Raises UsageError where n or a part of the key is out of range.
    """
    ptr = np.array([0, word("n", n, 34)])
    words = _Key(word("seed", seed), word("visit", visit), view, token_set, draw, Purpose.ORDER).words(Purpose.ORDER)
    return np.argsort(_ranks(ptr, np.zeros(1, np.int64), words), kind="stable")
