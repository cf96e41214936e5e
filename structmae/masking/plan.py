"""A plan: which tokens are hidden, scored and altered; and `draw`, which makes one from a layout, a spec and a key."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from structmae.errors import UsageError
from structmae.masking import choose, codes, kernels, memory
from structmae.masking.choose import Key
from structmae.masking.layout import Ints, Layout
from structmae.masking.parallel import ALONE, balanced, each, even, threads
from structmae.masking.rng import Purpose, stream, word
from structmae.masking.strategies import ABSENT, UNTOUCHED, Act, Spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Plan:
    """Flat int64 positions into the M tokens of a layout, ascending. Each set is made when first read, then kept.

    Hidden, scored and altered are three sets: with `keep`, a token is scored though the encoder sees it.
    Borders of the items in any of them, `kept` say: `np.searchsorted(plan.kept, layout.ptr)`.
    """

    code: NDArray[np.uint8]  # (M,) each token's Act, or 5 valid and not chosen, or 6 not valid
    ptr: Ints  # (I+1,) borders of the items
    from_where: Ints | None  # `source` where any token may get RANDOM, else None
    seed: int  # the key it was drawn with
    stream: int
    visit: int
    names: Ints  # (I,) what the items are called in it
    source_words: tuple[np.uint64, np.uint64, np.uint64]

    @property
    def size(self) -> int:
        """How many tokens, M."""
        return len(self.code)

    @cached_property
    def scored(self) -> Ints:
        """(K,) chosen: the loss is taken here."""
        _, hidden, scored, _ = self._runs[1][-1]
        return self.hidden if hidden == scored else self._range(Act.DROP, Act.KEEP)

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
        return self._split[0]

    @cached_property
    def visible(self) -> Ints:
        """(V,) valid and not hidden: the encoder sees their content."""
        return self._split[1]

    @cached_property
    def _memory(self) -> Ints:
        """(2, M) for hidden and visible, and for restore; what is never written takes no memory."""
        return memory.empty((2, self.size), np.int64)

    @cached_property
    def _split(self) -> tuple[Ints, Ints]:
        borders, before = self._runs
        hidden, valid = before[-1][1], before[-1][3]
        out = self._memory[0, :hidden], self._memory[0, hidden:valid]
        sets = (Act.DROP, Act.ZERO), (Act.KEEP, UNTOUCHED)

        def run(lo: int, hi: int) -> None:
            for into, (first, last) in zip(out, sets, strict=True):
                begin = _between(before[lo], first, last)
                codes.indices(into, begin, self.code, np.uint8(first), np.uint8(last), borders[lo], borders[hi])

        each(run, list(range(len(borders))))
        return out

    @cached_property
    def kept(self) -> Ints:
        """(R,) valid and not DROP: the row that the encoder reads."""
        dropped, hidden, _, _ = self._runs[1][-1]
        return self.visible if dropped == hidden else self._range(Act.TOKEN, UNTOUCHED)

    @cached_property
    def restore(self) -> Ints:
        """(M,) each token's place in `kept`, or -1."""
        out: Ints = self._memory[1]
        borders, before = self._runs
        first, last = int(Act.TOKEN), UNTOUCHED
        at = np.uint8(first), np.uint8(last)

        def run(lo: int, hi: int) -> None:
            codes.places(out, _between(before[lo], first, last), self.code, *at, borders[lo], borders[hi])

        each(run, list(range(len(borders))))
        return out

    @property
    def dropped(self) -> int:
        """How many tokens get DROP."""
        return self._runs[1][-1][0]

    def with_act(self, act: Act) -> Ints:
        """(n,) the tokens that get `act`; their sources are `plan.source[plan.act == act]`."""
        return np.flatnonzero(self.code == np.uint8(act))  # an enum of its own type compares ten times slower

    def random_ids(self, vocabulary: int) -> Ints:
        """(n,) for each token that gets RANDOM, in order, an id below `vocabulary`, each as likely: for token ids, with
        random_from "vocabulary"."""
        at = self.with_act(Act.RANDOM)
        item = np.searchsorted(self.ptr, at, side="right") - 1
        ranks = kernels.ranks_at(self.names[item], at - self.ptr[item], *self.source_words).astype(np.uint64)
        if vocabulary == 0:
            raise UsageError("vocabulary = 0: must be 1 or more, for there is no id below 0")
        ids: Ints = (ranks * np.uint64(word("vocabulary", vocabulary, 31)) >> np.uint64(32)).astype(np.int64)
        return ids

    def _range(self, first: int, last: int) -> Ints:
        borders, before = self._runs
        out = memory.empty(_between(before[-1], first, last), np.int64)
        at = np.uint8(first), np.uint8(last)

        def run(lo: int, hi: int) -> None:
            codes.indices(out, _between(before[lo], first, last), self.code, *at, borders[lo], borders[hi])

        each(run, list(range(len(borders))))
        return out

    @cached_property
    def _runs(self) -> tuple[list[int], list[list[int]]]:
        """Borders of the tokens that each thread does, and at each how many before are 0, <= 3, <= 4 and <= 5."""
        borders = even(self.size, threads(self.size))
        counts = np.zeros((len(borders), 4), np.int64)

        def run(lo: int, hi: int) -> None:
            counts[hi] = codes.tally(self.code, borders[lo], borders[hi])

        if self.size < ALONE:
            for part in range(1, len(borders)):
                run(part - 1, part)
        else:
            each(run, list(range(len(borders))))
        return borders, counts.cumsum(0).tolist()

    def plot(self, *, shape: tuple[int, ...] | None = None, items: int = 8, ax: Any = None) -> "Axes":
        """A picture of the first `items` items, as rows or as grids of `shape`; see plot.py."""
        from structmae.masking.plot import plot

        return plot(self, shape=shape, items=items, ax=ax)

    def __repr__(self) -> str:
        valid = self.size - int((self.code == ABSENT).sum())
        acts = [f"{n} {Act(a).name}" for a, n in enumerate(np.bincount(self.act, minlength=len(Act))) if n]
        percent = f"{100 * len(self.hidden) / valid:.1f}" if valid else "0"
        return (
            f"Plan({self.size} tokens, {valid} valid, {percent}% hidden, {len(self.scored)} scored"
            f"{': ' if acts else ''}{', '.join(acts)}; seed {self.seed}, stream {self.stream:#x}, visit {self.visit})"
        )


def _between(at_most: list[int], first: int, last: int) -> int:
    """How many codes are from first to last, of the ranges that sets have: at_most holds how many are <= 0, 3, 4, 5."""
    upto = {int(Act.DROP): 0, int(Act.ZERO): 1, int(Act.KEEP): 2, UNTOUCHED: 3}
    return at_most[upto[last]] - (at_most[upto[first - 1]] if first else 0)


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
    purpose and draw make the stream; a re-mask for the decoder is purpose REMASK, K of them have draw 0 to K - 1. A
    RANDOM token that has no other token to take content from gets TOKEN. Above 1e5 tokens as many threads help as
    numba.get_num_threads() says; the plan is the same.

    Raises UsageError where a part of the key is out of range, or step or the layout's set_id is missing.
    """
    if purpose not in (Purpose.HIDE, Purpose.REMASK) or isinstance(purpose, bool):
        raise UsageError(f"purpose = {purpose!r}: a plan is drawn for HIDE or REMASK; choose one of these")
    key = Key(word("seed", seed), word("visit", visit), view, token_set, word("draw", draw, 15), Purpose(purpose))
    if spec.scope == "item":
        ids = layout.item_id
        code = choose.tokens(layout, ids, spec, key)
    else:
        shared = layout.batch if spec.scope == "batch" else layout.sets
        names = shared.model.item_id
        if spec.scope == "batch":
            if step is None:
                raise UsageError("step = None: scope 'batch' draws by the global step; give draw(..., step=...)")
            names = np.full(len(names), word("step", step, 63), np.int64)
        ids = names[shared.which]
        code = choose.tokens(shared.model, names, spec, key)[shared.at]
        if layout.valid is not None:
            code[~layout.valid] = ABSENT
    source: Ints | None = None
    if (spec.random or spec.act is Act.RANDOM) and spec.random_from != "vocabulary":
        source = _sources(code, layout.ptr, ids, spec.random_from == "visible", key)
    which = stream(view, token_set, purpose, draw)
    return Plan(code, layout.ptr, source, key.seed, which, key.visit, ids, key.words(Purpose.SOURCE))


def _sources(code: NDArray[np.uint8], ptr: Ints, ids: Ints, only: bool, key: Key) -> Ints:
    borders = balanced(ptr, threads(len(code)))
    before = [np.count_nonzero(code[: ptr[item]] <= np.uint8(Act.KEEP)) for item in borders]
    source = memory.empty(int(before[-1]), np.int64)
    source[:] = -1
    words = key.words(Purpose.SOURCE)

    def run(lo: int, hi: int) -> None:
        codes.sources(code, ptr, ids, only, *words, source, before[lo], borders[lo], borders[hi])

    each(run, list(range(len(borders))))
    return source


def permutation(n: int, *, seed: int, visit: int, view: int = 0, token_set: int = 0, draw: int = 0) -> Ints:
    """An order (n,) int64 of n items in an epoch: sorted by the rank that position has in item 0, purpose ORDER.

    Raises UsageError where n or a part of the key is out of range.
    """
    out = np.empty(word("n", n, 34), np.uint32)
    words = Key(word("seed", seed), word("visit", visit), view, token_set, draw, Purpose.ORDER).words(Purpose.ORDER)
    kernels.ranks(out, 0, 0, *words)
    return np.argsort(out, kind="stable")
