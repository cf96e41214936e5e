"""Options that contradict each other are refused, with the words that say which and what to set."""

import ast
import re
import traceback
from dataclasses import replace
from pathlib import Path

import pytest

from structmae import resolve, rules
from structmae.errors import UsageError
from structmae.recipe import HeadOptions, Recipe, ViewOptions
from structmae.rules import check

CASES = [
    ("graphmae", {"mask.curriculum": "linear"}, "which is no way: set mask.ratio_first"),
    ("mae", {"mask.random": 0.6, "mask.keep": 0.6}, "shares of one whole"),
    ("mae", {"mask.ratio": 1.0}, "mask.ratio=1 leaves nothing for the encoder"),
    ("patchtst", {"mask.ratio": 1.0}, "mask.ratio=1 leaves nothing for the encoder"),
    ("bert", {"mask.strategy": "rectangle"}, "needs a grid, and text data has none"),
    ("graphmae", {"mask.strategy": "rectangle"}, "needs a grid, and graph data has none"),
    ("bert", {"mask.strategy": "dirichlet"}, "text data has one type"),
    ("patchtst", {"mask.strategy": "dirichlet"}, "series data has one type"),
    ("bert", {"mask.strategy": "weighted"}, "ids have no scores"),
    ("igpt_masked", {"mask.strategy": "weighted"}, "ids have no scores"),
    ("mae", {"mask.strategy": "weighted"}, "mask.weights=degree needs edges, and image data has none"),
    ("mae", {"mask.random": 0.1, "mask.random_from": "vocabulary"}, "for tokens that are ids"),
    ("graphmae", {"mask.random_from": "vocabulary"}, "for tokens that are ids"),
    ("mae", {"encoder.hidden": 10, "encoder.heads": 4}, "encoder.hidden=10 must be a multiple of encoder.heads=4"),
    ("graphmae", {"encoder.hidden": 10, "encoder.heads": 4}, "must be a multiple of encoder.heads=4"),
    ("gmae", {"encoder.hidden": 10, "encoder.heads": 4}, "must be a multiple of encoder.heads=4"),
    ("mae", {"encoder.attention": "adjacency"}, "encoder.attention=adjacency is for nodes"),
    ("gmae", {"encoder.attention": "causal"}, "encoder.attention=causal: nodes have no order"),
    ("gmae", {"encoder.attention": "window"}, "encoder.attention=window: nodes have no order"),
    ("igpt", {"encoder.attention": "full"}, "encoder.shift=true needs encoder.attention=causal"),
    ("igpt", {"mask.ratio": 0.5, "mask.keep": 0.0, "mask.act": "drop"}, "encoder.shift=true reads whole sequences"),
    ("igpt", {"encoder.shift": False}, "a kept token sees itself"),
    ("spans", {"encoder.attention": "causal", "encoder.shift": True}, "reads a series alone"),
    ("mae", {"terms.infonce.view": "secnd"}, "terms.infonce.view=secnd: no such view: did you mean second"),
    ("mae", {"heads.pixels.target": "latent"}, "heads.pixels.view=teacher: no such view: there are second, whole"),
    ("mae", {"heads.pixels.of": "node"}, "heads.pixels.of=node: a recipe of image has patch tokens"),
    ("graphmae", {"heads.features.of": "piece"}, "a recipe of graph has node and edge and pair tokens"),
    ("bert", {"heads.pieces.loss": "mse"}, "ids and codes go with ce alone"),
    ("mae", {"heads.pixels.loss": "ce"}, "ids and codes go with ce alone"),
    ("mae", {"heads.pixels.target": "code"}, "ids and codes go with ce alone"),
    ("mae", {"heads.pixels.loss": "bce"}, "heads.pixels.loss=bce is for heads.pixels.of=pair"),
    ("maskgae_edge", {"heads.edges.loss": "mse"}, "asks whether a pair is an edge"),
    ("maskgae_edge", {"heads.edges.target": "degree"}, "asks whether a pair is an edge"),
    ("maskgae_edge", {"mask.of": "token"}, "tells hidden edges from pairs that are none: set mask.of=edge"),
    ("mae", {"heads.pixels.target": "ids", "heads.pixels.loss": "ce"}, "these tokens have values"),
    ("igpt", {"heads.colours.target": "values", "heads.colours.loss": "mse"}, "these tokens are ids"),
    ("bert", {"heads.pieces.target": "code"}, "these tokens are ids"),
    ("graphmae", {"heads.edges.target": "degree"}, "heads.edges.target=degree is of nodes"),
    (
        "graphmae",
        {"heads.edges.target": "latent", "heads.edges.view": "whole", "mask.edge_ratio": 0.4},
        "heads.edges.target=latent is of tokens that have latents, and edges have none",
    ),
    ("bert", {"heads.pieces.layers": 1}, "heads.pieces.tied is for ids without a decoder"),
    ("mae", {"heads.pixels.tied": True}, "heads.pixels.tied is for ids without a decoder"),
    (
        "mae",
        {"heads.pixels.normalize": True, "heads.pixels.target": "latent", "heads.pixels.view": "whole"},
        "heads.pixels.normalize is for heads.pixels.target=values",
    ),
    ("mae", {"heads.pixels.decoder": "cross", "heads.pixels.layers": 0}, "decoder=cross needs layers"),
    ("multimae", {"heads.image.at": "all"}, "decoder=cross asks for hidden places: set heads.image.at=scored"),
    ("mae", {"heads.pixels.layers": 0}, "mask.act=drop needs a decoder: set heads.pixels.layers=1"),
    ("mae", {"heads.pixels.remask": "hidden"}, "leaves no latents to zero"),
    ("patchtst", {"heads.segments.hidden": 8}, "heads.segments.hidden=8 needs a decoder with layers"),
    ("mae", {"heads.pixels.hidden": 10}, "heads.pixels.hidden=10 must be a multiple of its 4 attention heads"),
    ("mae", {"heads.pixels.heads": 5}, "must be a multiple of its 5 attention heads"),
    ("graphmae", {"encoder.layer": "gcn", "encoder.edge_features": True}, "gcn layers read no edge attributes"),
    ("graphmae", {"encoder.layer": "gcn", "mask.edge_ratio": 0.5}, "mask.edge_ratio=0.5: gcn layers read no"),
    ("gmae", {"encoder.edge_features": True}, "a graph transformer reads no edge attributes"),
    ("gmae", {"mask.edge_ratio": 0.5}, "mask.edge_ratio=0.5: a graph transformer reads no edge attributes"),
    (
        "gmae",
        {"encoder.kind": "gnn", "encoder.layer": "gat", "mask.act": "token", "mask.edge_ratio": 0.5},
        "no head rebuilds edges",
    ),
    (Recipe(heads={"edges": HeadOptions(of="edge")}), {}, "the only heads rebuild edges"),
    ("maskgae_edge", {"mask.act": "token"}, "mask.of=edge takes edges away: set mask.act=drop"),
    ("graphmae", {"mask.of": "edge", "mask.act": "drop", "mask.edge_ratio": 0.5}, "hides edges beside nodes, where"),
    ("graphmae", {"encoder.attention": "adjacency"}, "a gnn has none; set encoder.kind=graph_transformer"),
    ("multimae", {"mask.exact": "kind"}, "draws how many of each type"),
    ("mae", {"mask.scope": "set"}, "image data comes in no sets"),
    ("bert", {"mask.random": 0.0, "mask.keep": 1.0}, "everything that is scored can be read"),
    ("igpt", {"terms.infonce.weight": 0.1}, "both views are the same"),
    ("gmae", {"mask.ratio": 1.0}, "mask.ratio=1 leaves nothing for the encoder"),
    ("maskgae_edge", {"heads.edges.at": "all"}, "whose latents stay"),
    ("maskgae_edge", {"heads.degree.of": "edge", "heads.degree.target": "values"}, "whole edges are hidden"),
    ("maskgae_edge", {"heads.degree.at": "scored"}, "mask.of=edge scores no node"),
    ("igpt", {"heads.colours.layers": 1}, "would look ahead of a causal encoder"),
    ("maskgae_edge", {"mask.strategy": "span"}, "edges are hidden by uniform, walk or block"),
    ("graphmae", {"mask.act": "drop"}, "a GNN reads whole graphs"),
    ("gmae", {"heads.features.remask": "hidden"}, "leaves no latents to zero"),
    ("graphmae", {"heads.features.layers": 0}, "a decoder of graphs has a layer or more"),
    ("graphmae", {"mask.scope": "set"}, "graphs come in no sets"),
    ("patchtst", {"tokens.context": 24, "tokens.segment": 12}, "holds fewer than 4 segments of 12 rows"),
    ("patchtst", {"tokens.normalize": "row"}, "tokens.normalize=row is for features of nodes"),
    ("spectrogram", {"tokens.spectrum": 5}, "tokens.spectrum=5 must be an even number"),
    ("patchtst", {"tokens.bands": 2}, "tokens.bands=2 is for a spectrogram"),
    ("patchtst", {"mask.group": "row"}, "mask.group=row is for a spectrogram"),
    ("spans", {"mask.act": "token"}, "a learned token is none: set mask.act=zero"),
    ("spans", {"heads.points.remask": "hidden"}, "a latent is of a step, no token"),
    ("spans", {"terms.infonce.layers": 1}, "terms.infonce.layers=1: with encoder.channels=mixed"),
    (
        "spans",
        {"heads.points.target": "latent", "heads.points.view": "whole"},
        "heads.points.target=latent: with encoder.channels=mixed",
    ),
    ("mae", {"tokens.normalize": "row"}, "tokens.normalize=row is for features of nodes"),
    ("multimae", {"heads.image.kind": "all"}, "rebuilds one type of tokens: set heads.image.kind to a map"),
    ("bert", {"mask.strategy": "block"}, "pieces of text stand in a row"),
    ("bert", {"mask.strategy": "walk"}, "pieces of text stand in a row"),
    ("bert", {"tokens.normalize": "standard"}, "pieces of text have no values"),
]
_BARE = replace(resolve("mae", {"terms.clustering.weight": 0.1}), views={"second": ViewOptions()})
CASES += [(_BARE, {}, "lacks: add [views.whole]")]


def refused(recipe, settings, words):
    with pytest.raises(UsageError, match=re.escape(words)) as error:
        resolve(recipe, settings) if isinstance(recipe, str) else check(recipe)
    return error


@pytest.mark.parametrize(
    ("recipe", "settings", "words"), CASES, ids=[f"{number}: {words}" for number, (_, _, words) in enumerate(CASES)]
)
def test_a_contradiction_is_refused(recipe, settings, words):
    refused(recipe, settings, words)
    if settings and isinstance(recipe, str):  # and it is these settings that are wrong
        resolve(recipe)


def test_every_rule_has_a_case():
    """No sentence of rules.py that nobody has read: each raise is the end of some case."""
    tree = ast.parse(Path(rules.__file__).read_text(encoding="utf-8"))
    raises = {node.lineno: ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    ends = {node.lineno: node.end_lineno for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    reached = set()
    for case in CASES:
        frame = traceback.extract_tb(refused(*case).tb)[-1]
        assert frame.filename == rules.__file__
        reached |= {line for line in raises if line <= frame.lineno <= ends[line]}
    assert [text for line, text in raises.items() if line not in reached] == []


def test_every_message_names_an_option_or_what_to_set():
    for case in CASES:
        text = str(refused(*case).value)
        assert re.search(r"(mask|encoder|tokens|terms|heads|views)\.", text), text
        assert "\n" not in text
