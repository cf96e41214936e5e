"""The contract of a draw, once more: from the definition, in plain Python ints and lists, slow.

It shares no code with the kernels.
"""

import math
from itertools import groupby

HIDE, SHARE, SWAP, SOURCE, REMASK = 0, 1, 2, 3, 4
DROP, TOKEN, RANDOM, ZERO, KEEP = range(5)
UNTOUCHED, ABSENT = 5, 6


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

    def rank(self, purpose, item, local):
        draw = self.draw + (32768 if self.remask and purpose in (SHARE, SWAP, SOURCE) else 0)
        stream = self.view * 2**28 + self.token_set * 2**20 + purpose * 2**16 + draw
        return philox([item % 2**32, item // 2**32, self.visit, local // 4], [self.seed, stream])[local % 4]


def how_many(ratio, n):
    if ratio == 0 or ratio == 1 or n == 0:
        return n if ratio == 1 else 0
    k = math.floor(ratio * n + 0.5 + 1e-9)
    return min(max(k, 1), n - 1) if n > 1 else k


def snapped(x):
    return round(x) if abs(x - round(x)) < 1e-9 else x


def choose(valid, group, stratum, name, spec, key):
    """Codes of the tokens of one item, given as lists (group, stratum may be None), under the item id `name`."""
    n = len(valid)
    group = group or list(range(n))
    stratum = stratum or [0] * n
    code = [UNTOUCHED if v else ABSENT for v in valid]
    members = {g: [p for p in range(n) if valid[p] and group[p] == g] for g in group}
    members = {m[0]: m for m in members.values() if m}  # by lead
    for _, leads in groupby(sorted(members, key=lambda p: (stratum[p], p)), key=lambda p: stratum[p]):
        leads = list(leads)
        k = how_many(spec.ratio, len(leads))
        hide = REMASK if key.remask else HIDE
        chosen = sorted(leads, key=lambda p: (key.rank(hide, name, p), p))[:k]
        by_swap = sorted(chosen, key=lambda p: (key.rank(SWAP, name, p), p))
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


def plan(items, spec, key, step=None):
    """Codes and sources (flat) of items: dicts of id, set, valid, group, stratum, the last two lists or None."""
    codes, froms, base = [], [], 0
    for item in items:
        n = len(item["valid"])
        if spec.scope == "item":
            name = item["id"]
            code = choose(item["valid"], item["group"], item["stratum"], name, spec, key)
        else:
            mates = items if spec.scope == "batch" else [other for other in items if other["set"] == item["set"]]
            name = step if spec.scope == "batch" else item["set"]
            longest = max(mates, key=lambda other: len(other["valid"]))
            shared = choose([True] * len(longest["valid"]), longest["group"], longest["stratum"], name, spec, key)
            code = [c if v else ABSENT for c, v in zip(shared, item["valid"], strict=False)]
        code, source = sources(code, name, spec, key)
        codes += code
        froms += [s + base if s >= 0 else -1 for s in source]
        base += n
    return codes, froms
