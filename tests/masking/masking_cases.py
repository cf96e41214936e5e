"""Made-up items for hypothesis, and their layout; other numbers of threads, and other interpreters."""

import os
import subprocess
import sys
from contextlib import contextmanager
from itertools import accumulate, pairwise
from math import prod
from pathlib import Path
from random import Random
from unittest import mock

import numba
import numpy as np
from hypothesis import strategies as st

from structmae.masking import Act, Spec, layout
from structmae.masking.adjacency import Adjacency, adjacency
from structmae.masking.strategies import SOURCES, STRATEGIES

ROOT = Path(__file__).parents[2]
SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])
RATIOS = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 0.15, 0.75]), st.floats(0.0, 1.0))


@st.composite
def items(draw, most=6, tokens=40, grouped=None, layered=None, gridded=False):
    """Items as the oracle takes them: empty, of one token, all invalid, ragged; with or without groups and strata. Or
    all on one grid."""
    grouped = draw(st.booleans()) if grouped is None else grouped
    layered = draw(st.booleans()) if layered is None else layered
    all_valid, nodes = draw(st.booleans()), draw(st.booleans())
    shape = shapes(Random(draw(st.integers(0, 2**32))), tokens) if gridded else None
    made = []
    for _ in range(draw(st.integers(0, most))):
        n = prod(shape) if gridded else draw(st.one_of(st.sampled_from([0, 1, 2, 4]), st.integers(0, tokens)))
        ids = st.lists(st.integers(-2, 8), min_size=n, max_size=n)
        chance = Random(draw(st.integers(0, 2**32)))  # not hypothesis: it is slow where much is to be drawn
        made.append(
            {
                "id": draw(st.one_of(st.integers(0, 20), st.integers(0, 2**63 - 1))),
                "set": draw(st.one_of(st.integers(0, 2), st.integers(0, 2**63 - 1))),
                "valid": [True] * n if all_valid else draw(st.lists(st.booleans(), min_size=n, max_size=n)),
                "group": draw(ids) if grouped else None,
                "stratum": draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)) if layered else None,
                "weight": weights(n, chance),
                "nodes": nodes,
                "near": steps(n, nodes, chance),
                "shape": shape,
            }
        )
    return made


def shapes(chance, tokens):
    """A grid of 1 to 3 axes, images above all, of so many places at most."""
    axes = chance.choice([1, 2, 2, 2, 3])
    return tuple(chance.randint(1, int(tokens ** (1 / axes))) for _ in range(axes))


def weights(n, chance):
    """Zeros, equals and some far apart."""
    kind = chance.random()
    if kind < 0.2:
        return [chance.choice([0.0, 3.0])] * n
    return [chance.choice([0.0, 1.0, chance.random(), chance.expovariate(1) ** 5]) for _ in range(n)]


def steps(n, nodes, chance):
    """(place, token) for each place. Some places are isolated, some steps come twice, some leave the item."""
    size = n if nodes else chance.choice([0, 1, 3, n, 2 * n])
    out = [[] for _ in range(size)]
    linked = [p for p in range(size) if chance.random() < 0.8]
    for _ in range(chance.choice([0, 1, n // 3, n // 2, n, 3 * n]) if linked and n else 0):
        source, place, token = chance.choice(linked), chance.choice(linked), chance.randrange(n)
        far = -1 - chance.randrange(8)
        kind = chance.random()
        out[source].append((far if kind < 0.1 else place, token))
        if kind > 0.2:  # and back; less often once more
            out[place].append((source, token))
        if kind > 0.9:
            out[source].append((place, token))
    return [[(p, p if nodes else t) for p, t in row] for row in out]


@st.composite
def specs(draw, strategies=STRATEGIES, scopes=("item", "batch", "set")):
    random = draw(SHARES)
    keep = draw(SHARES.filter(lambda k: random + k <= 1.0))
    return Spec(
        strategy=draw(st.sampled_from(strategies)),
        ratio=draw(RATIOS),
        act=draw(st.sampled_from(list(Act))),
        random=random,
        keep=keep,
        random_from=draw(st.sampled_from(SOURCES)),
        scope=draw(st.sampled_from(scopes)),
        power=draw(st.sampled_from([1.0, 2.0, 0.5, 0.0, -1.0])),
        length=draw(st.one_of(st.integers(1, 9), st.just(100))),
        blocks=draw(st.one_of(st.integers(1, 4), st.just(2**31))),
        start=draw(st.sampled_from(["node", "edge"])),
        concentration=draw(st.sampled_from([1.0, 0.5, 3.0, 1e-3, 1e-200, 1e6])),
        area=draw(st.one_of(st.integers(1, 9), st.sampled_from([16, 2**31]))),
        aspect=draw(st.sampled_from([0.3, 1.0, 0.5, 1e-3])),
    )


@st.composite
def cases(draw, strategies=STRATEGIES, scopes=("item", "batch", "set"), **fields):
    """Items and a spec that they have what is needed for."""
    spec = draw(specs(strategies, scopes))
    return draw(items(**fields, gridded=spec.strategy == "rectangle")), spec


def near_of(made, ptr):
    """The Adjacency of such items: tokens are its places if item["nodes"] says so."""
    sizes = [len(item["near"]) for item in made]
    borders = list(accumulate(sizes, initial=0))
    indptr, place, token = [0], [], []
    for base, first, last, item in zip(ptr, borders, borders[1:], made, strict=False):
        foreign = [*range(first), *range(last, borders[-1])]
        for row in item["near"]:
            kept = [(p, t) for p, t in row if p >= 0 or foreign]
            place += [p + first if p >= 0 else foreign[p % len(foreign)] for p, _ in kept]
            token += [t + base for _, t in kept]
            indptr.append(len(place))
    if made and made[0]["nodes"]:
        return adjacency(indptr, place, ptr)
    whole = [np.array(a, np.int64) for a in (indptr, place, token, borders)]
    return Adjacency(*whole)


def layout_of(made, lazy=False):
    """The layout of such items; arrays that say nothing are left out, as a caller would."""

    def flat(name):
        return [x for item in made for x in item[name]]

    ptr = list(accumulate((len(item["valid"]) for item in made), initial=0))
    valid = flat("valid")
    return layout(
        ptr,
        item_id=[item["id"] for item in made],
        valid=None if all(valid) else valid,
        group=flat("group") if made and made[0]["group"] is not None else None,
        stratum=flat("stratum") if made and made[0]["stratum"] is not None else None,
        set_id=[item["set"] for item in made],
        weight=flat("weight"),
        adjacency=(lambda: near_of(made, ptr)) if lazy else near_of(made, ptr),
        shape=made[0]["shape"] if made else (1, 1),
    )


def built(fields):
    """The layout of plain fields, as golden.json has them: an adjacency is rows, or places and tokens on steps."""
    near = fields.get("adjacency")
    if near is not None:
        arrays = {name: np.array(values, np.int64) for name, values in near.items()}
        near = Adjacency(**arrays) if "token" in near else adjacency(**arrays)
    return layout(**{**fields, "adjacency": near})


def items_of(at):
    """The items of a layout, as the oracle takes them."""
    made = []
    near = None if at.neighbours is None else at.adjacency
    for i, (a, b) in enumerate(pairwise(at.ptr.tolist())):

        def cut(x, a=a, b=b):
            return None if x is None else x[a:b].tolist()

        item = {name: cut(getattr(at, name)) for name in ("valid", "group", "stratum", "weight")}
        item |= {"id": int(at.item_id[i]), "set": None if at.set_id is None else int(at.set_id[i])}
        item |= {"shape": at.shape}
        item |= {"valid": item["valid"] or [True] * (b - a), "nodes": near is not None and near.places_are_tokens}
        item["near"] = None if near is None else rows_of(near, i, a)
        made.append(item)
    return made


def rows_of(near, i, base):
    """The steps (place, token) out of each place of item i, whose tokens start at `base`."""
    first, last = near.items[i : i + 2].tolist()
    place = np.where((near.place >= first) & (near.place < last), near.place - first, -1)
    pairs = list(zip(place.tolist(), (near.token - base).tolist(), strict=True))
    return [pairs[near.ptr[p] : near.ptr[p + 1]] for p in range(first, last)]


def cycle(n, items=1):
    """Places 0 .. n - 1 in a ring, in each of `items` items: every place has two neighbours."""
    at = np.arange(n)
    one = np.stack([(at - 1) % n, (at + 1) % n], 1).ravel()
    indices = (one + n * np.arange(items)[:, None]).ravel()
    return adjacency(2 * np.arange(n * items + 1), indices, n * np.arange(items + 1))


@contextmanager
def on_threads(number, large=8):
    """As many threads, whatever the work and the machine; strata of `large` units or more, which are more than
    threads, are spread over them."""
    from structmae.masking import choose, parallel, plan

    with (
        mock.patch.object(numba, "get_num_threads", return_value=number),
        mock.patch.object(parallel.threads, "__defaults__", (0,)),
        mock.patch.object(plan, "ALONE", 0),
        mock.patch.object(choose, "LARGE", large),
    ):
        yield


def run(code, *options, **environment):
    """The words that a fresh interpreter prints."""
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
