"""The contract of a draw, once more: from the definition, in plain Python ints, floats and lists, slow.

It shares no code with the kernels. An item is a dict: id, set, valid (n,), group and stratum (n,) or None, weight (n,)
or None, and near: None or a list of steps (place, token) for each place, a place below 0 being one of another item;
`nodes` says that places are tokens. shape: the grid, or None.
"""

import math
from itertools import groupby, pairwise

from scipy import stats

HIDE, SHARE, SWAP, SOURCE, REMASK, BUDGET = 0, 1, 2, 3, 4, 7
DROP, TOKEN, RANDOM, ZERO, KEEP = range(5)
UNTOUCHED, ABSENT = 5, 6


class CloseError(Exception):
    """Two keys are too near each other for their last bits to be left out of account."""


def philox(counter, key, rounds=10):
    c, k = list(counter), list(key)
    for _ in range(rounds):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b % 2**32, (a >> 32) ^ c[3] ^ k[1], a % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


class Key:
    def __init__(self, seed, visit, view=0, token_set=0, draw=0, remask=False):
        self.seed, self.visit, self.view, self.token_set, self.draw, self.remask = (
            seed,
            visit,
            view,
            token_set,
            draw,
            remask,
        )
        self.made = {}

    def rank(self, purpose, item, local):
        draw = self.draw + (32768 if self.remask and purpose in (SHARE, SWAP, SOURCE, BUDGET) else 0)
        stream = self.view * 2**28 + self.token_set * 2**20 + purpose * 2**16 + draw
        block = (item % 2**32, item // 2**32, self.visit, local // 4), (self.seed, stream)
        if block not in self.made:
            self.made[block] = philox(*block)
        return self.made[block][local % 4]


def how_many(ratio, n):
    if ratio == 0 or ratio == 1 or n == 0:
        return n if ratio == 1 else 0
    k = math.floor(ratio * n + 0.5 + 1e-9)
    return min(max(k, 1), n - 1) if n > 1 else k


def snapped(x):
    return round(x) if abs(x - round(x)) < 1e-9 else x


def smallest(candidates, rank, k):
    """The k of smallest rank, ties by position."""
    return sorted(candidates, key=lambda p: (rank[p], p))[:k]


def weighted(leads, k, rank, weight, power):
    """Exponential times: the k that come first are drawn without replacement, each in proportion to its weight."""
    top = max(weight[p] for p in leads)
    time = {}
    for p in leads:
        at = -math.log1p(-(rank[p] + 0.5) / 2**32)
        if power == 0:
            time[p] = (0, at)
        elif weight[p] == 0:  # last where the heavy are preferred, first where the light are
            time[p] = (1 if power > 0 else -1, rank[p])
        else:
            time[p] = (0, at / (weight[p] / top) ** power)
    order = sorted(leads, key=lambda p: (time[p], p))
    if 0 < k < len(order):
        (late, a), (later, b) = time[order[k - 1]], time[order[k]]
        if late == later == 0 and a != b and abs(a - b) <= 1e-9 * b:
            raise CloseError
    return order[:k]


def span(leads, k, rank, length):
    """Runs put into slots between the unchosen, their lengths cut from k."""
    n = len(leads)
    if k in (0, n):
        return leads[:k]
    runs = min(max(math.floor(k / length + 0.5), 1), min(k, n - k + 1))
    ranks = [rank[p] for p in leads]
    slots = smallest(range(n - k + 1), ranks, runs)
    inside = ranks[n - k + 1 :]
    cuts = [0, *sorted(j + 1 for j in smallest(range(k - 1), inside, runs - 1)), k]
    lengths = iter([b - a for a, b in pairwise(cuts)])
    row = []
    for slot in range(n - k + 1):
        row += [True] * next(lengths) if slot in slots else []
        row += [False]
    return [p for p, yes in zip(leads, row[:-1], strict=True) if yes]


def block(leads, k, rank, blocks, near):
    """Balls that grow together. near: the units one step from each."""
    chosen, shell, extra = set(), set(smallest(leads, rank, min(blocks, k))), 1
    seen = set(shell)
    while len(chosen) + len(shell) < k:
        chosen |= shell
        shell = {q for p in shell for q in near[p]} & set(leads) - seen
        if not shell:
            shell = set(smallest(set(leads) - seen, rank, min(extra, k - len(chosen))))
            extra *= 2
        seen |= shell
    return chosen | set(smallest(shell, rank, k - len(chosen)))


def good_steps(item, lead_of):
    """(from, to, unit) of the steps that stay in the item and pass and reach what is valid, in order."""
    found = []
    for source, out in enumerate(item["near"] or []):
        for place, token in out:
            ends = [source, place] if item["nodes"] else [token]
            if place >= 0 and all(p in lead_of for p in ends):
                found.append((source, place, lead_of[token]))
    return found


def neighbours(item, lead_of):
    """The units one step from each unit: from any of its tokens, or either end of any of its edges."""
    steps = good_steps(item, lead_of)
    at = {lead: set() for lead in lead_of.values()}
    for p, lead in lead_of.items() if item["nodes"] else ():
        at[lead].add(p)
    for source, place, unit in steps if not item["nodes"] else ():
        at[unit] |= {source, place}
    return {lead: {unit for source, _, unit in steps if source in places} for lead, places in at.items()}


def path(word, length, by_edge, item, lead_of, steps):
    """The units that a walk passes, None for what is none. word: of each of its numbers."""
    passed = []
    if by_edge:
        _, place, unit = steps[word(0) * len(steps) >> 32]
        passed, more = [unit], range(1, length)
    else:
        place = word(0) * len(item["near"]) >> 32
        passed, more = [lead_of.get(place) if item["nodes"] else None], range(1, length + 1)
    for t in more:
        out = [step for step in steps if step[0] == place]
        if not out:
            break
        _, place, unit = out[word(t) * len(out) >> 32]
        passed.append(unit)
    return passed


def walk(quota, stratum_of, rank, words, spec, item, lead_of):
    """The units along walks, then those of smallest rank. quota: for each stratum; stratum_of: each unit's."""
    quota, chosen = dict(quota), set()
    steps, by_edge = good_steps(item, lead_of), spec.start == "edge"
    per = math.ceil((spec.length + 1) / 4) * 4
    possible = steps if by_edge else item["near"]
    for w in range(4 * len(stratum_of) // spec.length + 64 if possible else 0):
        if not any(quota.values()):
            break
        for unit in path(lambda t: words(w * per + t), spec.length, by_edge, item, lead_of, steps):  # noqa: B023
            if unit is not None and unit not in chosen and quota[stratum_of[unit]]:
                chosen.add(unit)
                quota[stratum_of[unit]] -= 1
    return chosen | rest(quota, stratum_of, rank, chosen)


def rest(quota, stratum_of, rank, chosen):
    """What is left of each quota, by rank."""
    free = {s: [p for p in stratum_of if stratum_of[p] == s and p not in chosen] for s in quota}
    return {p for s, left in quota.items() for p in smallest(free[s], rank, left)}


def budget(sizes, total, concentration, rank):
    """How many of each stratum stay visible, of `total` in all. rank: of each stratum's number."""
    log = []
    for s in range(len(sizes)):
        u = (rank(s) + 0.5) / 2**32
        variate = float(stats.gamma.ppf(u, concentration))
        small = (math.log(u) + math.lgamma(concentration + 1)) / concentration  # where the density is x ** (a - 1)
        log.append(math.log(variate) if variate > 1e-20 else small)
    got, quota, free = {}, {}, set(range(len(sizes)))
    while True:
        left = total - sum(got.values())
        weight = {s: math.exp(log[s] - max(log[t] for t in free)) for s in free}
        quota = {s: left * weight[s] / sum(weight.values()) for s in free}
        full = {s for s in free if quota[s] >= sizes[s]}
        got |= {s: sizes[s] for s in full}
        free -= full
        if not full or not free:
            break
    left = total - sum(got.values())
    parts = {s: math.floor(quota[s]) for s in free}
    left -= sum(parts.values())
    order = sorted(free, key=lambda s: (parts[s] - quota[s], s))
    if 0 < left < len(order):
        a, b = (quota[s] - parts[s] for s in order[left - 1 : left + 1])
        if a - b < 1e-7:
            raise CloseError
    got |= {s: parts[s] + (s in order[:left]) for s in free}
    return [got[s] for s in range(len(sizes))]


def rectangle(quota, stratum_of, rank, words, spec, shape):
    """The units in rectangles, then those of smallest rank."""
    quota, chosen = dict(quota), set()
    high, wide = (1, *shape)[-2:]
    number = idle = 0
    while any(quota.values()) and idle < 10:
        free = [p for p in stratum_of if quota[stratum_of[p]]]
        most = min(high * wide, -(-sum(quota.values()) * high * wide // len(free)))
        least = min(spec.area, most)
        word = [words(2**31 + 4 * number + j) for j in range(4)]
        places = least + word[0] * (most - least + 1) // 2**32
        side = math.sqrt(places * spec.aspect ** (1 - 2 * (word[1] + 0.5) / 2**32))
        if abs(side % 1 - 0.5) < 1e-9:
            raise CloseError
        h = min(max(math.floor(side + 0.5), 1), places, high)
        w = -(-places // h)
        if w > wide:
            h, w = -(-places // wide), wide
        row, column = word[2] * (high - h + 1) // 2**32, word[3] * (wide - w + 1) // 2**32
        y, x = range(row, row + h), range(column, column + w)
        new = [p for p in free if p not in chosen and p // wide % high in y and p % wide in x]
        for s in {stratum_of[p] for p in new}:
            got = smallest([p for p in new if stratum_of[p] == s], rank, quota[s])
            chosen |= set(got)
            quota[s] -= len(got)
        number, idle = number + 1, 0 if new else idle + 1
    return chosen | rest(quota, stratum_of, rank, chosen)


def pick(item, strata, members, name, spec, key):
    """The chosen units, by lead."""
    lead_of = {p: lead for lead, tokens in members.items() for p in tokens}
    hide = REMASK if key.remask else HIDE
    rank = {p: key.rank(hide, name, p) for leads in strata for p in leads}
    counts = [how_many(spec.ratio, len(leads)) for leads in strata]
    stratum_of = {p: s for s, leads in enumerate(strata) for p in leads}
    quota = dict(enumerate(counts))
    if spec.strategy == "walk":
        return walk(quota, stratum_of, rank, lambda local: key.rank(hide, name, local), spec, item, lead_of)
    if spec.strategy == "rectangle":
        return rectangle(quota, stratum_of, rank, lambda local: key.rank(hide, name, local), spec, item["shape"])
    if spec.strategy == "dirichlet" and 0 < spec.ratio < 1 and strata:
        sizes, n = [len(leads) for leads in strata], len(stratum_of)
        stay = budget(sizes, n - how_many(spec.ratio, n), spec.concentration, lambda s: key.rank(BUDGET, name, s))
        counts = [size - kept for size, kept in zip(sizes, stay, strict=True)]
    chosen = set()
    near = neighbours(item, lead_of) if spec.strategy == "block" else None
    for leads, k in zip(strata, counts, strict=True):
        if spec.strategy in ("uniform", "dirichlet"):
            chosen |= set(smallest(leads, rank, k))
        elif spec.strategy == "weighted":
            weight = {p: sum(item["weight"][q] for q in members[p]) / len(members[p]) for p in leads}
            chosen |= set(weighted(leads, k, rank, weight, spec.power))
        elif spec.strategy == "span":
            chosen |= set(span(leads, k, rank, spec.length))
        else:
            chosen |= block(leads, k, rank, spec.blocks, near)
    return chosen


def choose(item, name, spec, key):
    """Codes of the tokens of one item under the id `name`."""
    valid = item["valid"]
    n = len(valid)
    group = item["group"] or list(range(n))
    stratum = item["stratum"] or [0] * n
    code = [UNTOUCHED if v else ABSENT for v in valid]
    members = {g: [p for p in range(n) if valid[p] and group[p] == g] for g in group}
    members = {m[0]: m for m in members.values() if m}  # by lead
    ordered = sorted(members, key=lambda p: (stratum[p], p))
    strata = [list(leads) for _, leads in groupby(ordered, key=lambda p: stratum[p])]
    picked = pick(item, strata, members, name, spec, key)
    for leads in strata:
        chosen = [p for p in leads if p in picked]
        k = len(chosen)
        by_swap = smallest(chosen, {p: key.rank(SWAP, name, p) for p in chosen}, k)
        u = key.rank(SHARE, name, leads[0]) / 2**32
        randoms = math.floor(snapped(k * spec.random) + u)
        keeps = math.floor(snapped(k * (spec.random + spec.keep)) + u)
        for place, p in enumerate(by_swap):
            act = RANDOM if place < randoms else KEEP if place < keeps else int(spec.act)
            for q in members[p]:
                code[q] = act
    return code


def sources(code, name, spec, key):
    """Codes of one item once more, and the local source of each token (-1: none)."""
    code, source = list(code), [-1] * len(code)
    if spec.random_from == "vocabulary":
        return code, source
    seen = [p for p, c in enumerate(code) if c in (KEEP, UNTOUCHED)]
    valid = [p for p, c in enumerate(code) if c != ABSENT]
    for p, c in enumerate(list(code)):
        if c == RANDOM:
            pool = seen if spec.random_from == "visible" else [q for q in valid if q != p]
            if pool:
                source[p] = pool[key.rank(SOURCE, name, p) * len(pool) // 2**32]
            else:
                code[p] = TOKEN
    return code, source


def name_of(item, spec, step):
    return {"item": item["id"], "batch": step, "set": item["set"]}[spec.scope]


def plan(items, spec, key, step=None):
    """Codes and sources (flat) of items. Raises CloseError."""
    codes, froms, base = [], [], 0
    for item in items:
        n, name = len(item["valid"]), name_of(item, spec, step)
        if spec.scope == "item":
            code = choose(item, name, spec, key)
        else:
            mates = items if spec.scope == "batch" else [other for other in items if other["set"] == item["set"]]
            longest = max(mates, key=lambda other: len(other["valid"]))
            shared = choose({**longest, "valid": [True] * len(longest["valid"])}, name, spec, key)
            code = [c if v else ABSENT for c, v in zip(shared, item["valid"], strict=False)]
        code, source = sources(code, name, spec, key)
        codes += code
        froms += [s + base if s >= 0 else -1 for s in source]
        base += n
    return codes, froms


def random_ids(items, code, spec, key, vocabulary, step=None):
    """An id for each token that gets RANDOM."""
    at = [(name_of(item, spec, step), p) for item in items for p in range(len(item["valid"]))]
    return [key.rank(SOURCE, *at[p]) * vocabulary // 2**32 for p, c in enumerate(code) if c == RANDOM]
