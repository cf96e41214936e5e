"""Rules between options: what no single range can say. `check` raises UsageError with the option to change."""

from collections.abc import Callable

from structmae.errors import UsageError
from structmae.recipe import HeadOptions, Recipe
from structmae.registry import near

# The token sets of each modality, which its heads rebuild.
SETS = {"graph": ("node", "edge", "pair"), "series": ("segment",), "image": ("patch",), "text": ("piece",)}


def check(recipe: Recipe) -> None:
    """Raises UsageError where options of `recipe` contradict each other."""
    _mask(recipe)
    _transformer(recipe)
    _views(recipe)
    for name, head in recipe.heads.items():
        _head(recipe, f"heads.{name}", head)
    if recipe.modality in _MODALITIES:
        _MODALITIES[recipe.modality](recipe)


def _mask(recipe: Recipe) -> None:
    mask = recipe.mask
    still = mask.ratio_first == mask.ratio and (mask.strategy != "weighted" or mask.power_first == mask.power)
    if mask.curriculum != "none" and still:
        raise UsageError(
            f"mask.curriculum={mask.curriculum} goes from mask.ratio_first={mask.ratio_first:g} to "
            f"mask.ratio={mask.ratio:g}, which is no way: set mask.ratio_first (or, with weights, mask.power_first)"
        )
    if mask.random + mask.keep > 1 + 1e-9:
        raise UsageError(
            f"mask.random={mask.random} and mask.keep={mask.keep}: shares of one whole, so at most 1 together"
        )
    drops = recipe.modality != "graph" or (mask.act == "drop" and mask.of == "token")
    if drops and mask.ratio == 1 and mask.random + mask.keep == 0:
        raise UsageError("mask.ratio=1 leaves nothing for the encoder to read: set it below 1")
    if mask.strategy == "rectangle" and recipe.modality not in ("image", "series"):
        raise UsageError(f"mask.strategy=rectangle needs a grid, and {recipe.modality} data has none: choose another")
    if mask.strategy == "dirichlet" and mask.exact == "kind":
        raise UsageError("mask.exact=kind: strategy dirichlet draws how many of each type; set mask.exact=item")
    if mask.scope == "set" and recipe.modality in ("image", "text"):
        raise UsageError(f"mask.scope=set: {recipe.modality} data comes in no sets; set mask.scope=item or batch")
    if mask.of == "edge" and mask.edge_ratio > 0:
        raise UsageError("mask.edge_ratio hides edges beside nodes, where mask.of=token: set it to 0")
    if mask.keep == 1 and recipe.encoder.attention != "causal" and not recipe.encoder.shift:
        raise UsageError("mask.keep=1: everything that is scored can be read; lower it")
    if mask.strategy == "dirichlet" and recipe.modality != "image":
        raise UsageError(f"mask.strategy=dirichlet shares out types of tokens, and {recipe.modality} data has one type")
    if recipe.modality in SETS and recipe.modality != "graph" and mask.strategy == "weighted":
        if recipe.modality == "text" or recipe.tokens.palette:
            raise UsageError("mask.strategy=weighted: ids have no scores; choose uniform, span or block")
        if mask.weights != "variance":
            raise UsageError(
                f"mask.weights={mask.weights} needs edges, and {recipe.modality} data has none: set "
                "mask.weights=variance"
            )
    if mask.random > 0 and mask.random_from == "vocabulary" and not _discrete(recipe):
        raise UsageError("mask.random_from=vocabulary is for tokens that are ids: set it to visible or any")


def _discrete(recipe: Recipe) -> bool:
    """Whether tokens are ids."""
    return recipe.modality == "text" or (recipe.modality == "image" and recipe.tokens.palette > 0)


def _transformer(recipe: Recipe) -> None:
    """Rules of transformers, which all encoders but message passing are."""
    mask, encoder = recipe.mask, recipe.encoder
    gnn = recipe.modality == "graph" and encoder.kind == "gnn"
    if (not gnn or encoder.layer == "gat") and encoder.hidden % encoder.heads:
        raise UsageError(f"encoder.hidden={encoder.hidden} must be a multiple of encoder.heads={encoder.heads}")
    if encoder.attention == "adjacency" and recipe.modality != "graph":
        raise UsageError("encoder.attention=adjacency is for nodes: set full, causal or window")
    if encoder.attention in ("causal", "window") and recipe.modality == "graph":
        raise UsageError(f"encoder.attention={encoder.attention}: nodes have no order; set full or adjacency")
    if encoder.shift and encoder.attention != "causal":
        raise UsageError("encoder.shift=true needs encoder.attention=causal: each place would see its own token")
    if encoder.shift and mask.act == "drop":
        raise UsageError("encoder.shift=true reads whole sequences: set mask.act=token or zero")
    if encoder.attention == "causal" and not encoder.shift and mask.keep > 0:
        raise UsageError("encoder.attention=causal: a kept token sees itself; set encoder.shift=true")
    if encoder.shift and encoder.channels == "mixed":
        raise UsageError("encoder.shift=true reads a series alone: set encoder.channels=independent")


def _views(recipe: Recipe) -> None:
    for key, name in {
        "terms.infonce.view": recipe.terms.infonce.view,
        **{f"heads.{head}.view": options.view for head, options in recipe.heads.items() if options.target == "latent"},
    }.items():
        if name not in recipe.views:
            raise UsageError(f"{key}={name}: no such view: {near(name, list(recipe.views))}")
    second = recipe.views[recipe.terms.infonce.view]
    same = second.encoder == "online" and second.augment == "none" and second.plan == "redraw"
    if recipe.terms.infonce.weight > 0 and same and recipe.mask.keep == 1:
        raise UsageError(
            f"terms.infonce.view={recipe.terms.infonce.view}: nothing is hidden, so both views are the same; give it "
            f"views.{recipe.terms.infonce.view}.augment=shift or encoder=ema"
        )
    if recipe.terms.clustering.weight > 0 and "whole" not in recipe.views:
        raise UsageError("terms.clustering reads the view whole, which this recipe lacks: add [views.whole]")


def _head(recipe: Recipe, key: str, head: HeadOptions) -> None:
    mask, sets = recipe.mask, SETS.get(recipe.modality)
    if sets is not None and head.of not in sets:
        raise UsageError(f"{key}.of={head.of}: a recipe of {recipe.modality} has {' and '.join(sets)} tokens")
    if (head.target in ("ids", "code")) != (head.loss == "ce"):
        raise UsageError(f"{key}.target={head.target} and {key}.loss={head.loss}: ids and codes go with ce alone")
    if head.of != "pair" and head.loss == "bce":
        raise UsageError(f"{key}.loss=bce is for {key}.of=pair")
    if head.of == "pair" and (head.loss != "bce" or head.target != "values"):
        raise UsageError(f"{key}.of=pair asks whether a pair is an edge: leave target as it is and set loss=bce")
    if head.of == "pair" and (head.at != "scored" or head.remask != "none"):
        raise UsageError(f"{key}.of=pair asks about hidden edges, whose latents stay: set at=scored and remask=none")
    if mask.takes_edges and head.of == "edge":
        raise UsageError(f"{key}.of=edge rebuilds attributes, and here whole edges are hidden: take of=pair")
    if mask.of == "edge" and head.of == "node" and head.at == "scored":
        raise UsageError(f"{key}: mask.of=edge scores no node; set {key}.at=all, or take a recipe such as maskgae_edge")
    if head.of == "pair" and not mask.takes_edges:
        raise UsageError(
            f"{key}.of=pair tells hidden edges from pairs that are none: set mask.of=edge, or mask.edge_ratio with "
            "mask.edge_act=drop"
        )
    if head.target == "ids" and not _discrete(recipe):
        raise UsageError(f"{key}.target=ids: these tokens have values; set values or code (images: or tokens.palette)")
    if head.target in ("values", "code") and head.of != "pair" and _discrete(recipe):
        raise UsageError(f"{key}.target={head.target}: these tokens are ids; set target=ids and loss=ce")
    if head.target == "degree" and head.of != "node":
        raise UsageError(f"{key}.target=degree is of nodes: set {key}.of=node")
    if head.tied and (head.target != "ids" or head.layers):
        raise UsageError(f"{key}.tied is for ids without a decoder: set {key}.target=ids and {key}.layers=0")
    if head.target == "latent" and head.of in ("edge", "pair"):
        raise UsageError(f"{key}.target=latent is of tokens that have latents, and edges have none: set {key}.of=node")
    if head.normalize and head.target != "values":
        raise UsageError(f"{key}.normalize is for {key}.target=values")
    if recipe.modality == "graph":
        return
    if recipe.encoder.attention == "causal" and head.layers:
        raise UsageError(f"{key}.layers={head.layers}: a decoder would look ahead of a causal encoder; set it to 0")
    if head.decoder == "cross" and not head.layers:
        raise UsageError(f"{key}.decoder=cross needs layers: set {key}.layers=1")
    if head.decoder == "cross" and head.at != "scored":
        raise UsageError(f"{key}.decoder=cross asks for hidden places: set {key}.at=scored")
    if mask.act == "drop" and not head.layers:  # a linear map would read zeros wherever something is hidden
        raise UsageError(f"mask.act=drop needs a decoder: set {key}.layers=1")
    if mask.act == "drop" and head.remask == "hidden":
        raise UsageError(f"{key}.remask=hidden: mask.act=drop leaves no latents to zero; set it to none")
    if head.hidden and not head.layers:
        raise UsageError(f"{key}.hidden={head.hidden} needs a decoder with layers: set {key}.layers=1")
    width, heads = head.hidden or recipe.encoder.hidden, head.heads or recipe.encoder.heads
    if head.layers and width % heads:
        raise UsageError(f"{key}.hidden={width} must be a multiple of its {heads} attention heads: set {key}.heads")


def _graph(recipe: Recipe) -> None:
    mask, encoder = recipe.mask, recipe.encoder
    gnn = encoder.kind == "gnn"
    if gnn and encoder.attention != "full":
        raise UsageError(f"encoder.attention={encoder.attention}: a gnn has none; set encoder.kind=graph_transformer")
    if recipe.reads_edges and encoder.layer == "gcn" and gnn:
        asked = "encoder.edge_features=true" if encoder.edge_features else f"mask.edge_ratio={mask.edge_ratio:g}"
        raise UsageError(f"{asked}: gcn layers read no edge attributes; set encoder.layer=gat or gin")
    if recipe.reads_edges and not gnn:
        asked = "encoder.edge_features=true" if encoder.edge_features else f"mask.edge_ratio={mask.edge_ratio:g}"
        raise UsageError(f"{asked}: a graph transformer reads no edge attributes; set encoder.kind=gnn")
    wanted = "pair" if mask.edge_act == "drop" else "edge"
    if mask.edge_ratio > 0 and not any(head.of == wanted for head in recipe.heads.values()):
        raise UsageError(
            f"mask.edge_ratio={mask.edge_ratio:g} with mask.edge_act={mask.edge_act}: no head rebuilds edges; add one "
            f'with of = "{wanted}" to the recipe'
        )
    if all(head.of == "edge" for head in recipe.heads.values()) and mask.edge_ratio == 0:
        raise UsageError("the only heads rebuild edges, and mask.edge_ratio=0 hides none: set mask.edge_ratio")
    if mask.of == "edge" and mask.act != "drop":
        raise UsageError("mask.of=edge takes edges away: set mask.act=drop")
    if mask.of == "edge" and mask.strategy not in ("uniform", "walk", "block"):
        raise UsageError(f"mask.strategy={mask.strategy}: edges are hidden by uniform, walk or block")
    if mask.of == "token" and mask.act == "drop" and gnn:
        raise UsageError("mask.act=drop: a GNN reads whole graphs; set mask.act=token or zero, or a graph transformer")
    if mask.of == "token" and mask.act == "drop":
        for name, head in recipe.heads.items():
            if head.remask == "hidden":
                raise UsageError(f"heads.{name}.remask=hidden: mask.act=drop leaves no latents to zero; set it to none")
    if any(not head.layers for head in recipe.heads.values()):
        raise UsageError("heads.*.layers=0: a decoder of graphs has a layer or more")
    if mask.scope == "set":
        raise UsageError("mask.scope=set: graphs come in no sets; set mask.scope=item or batch")


def _series(recipe: Recipe) -> None:
    mask, tokens = recipe.mask, recipe.tokens
    rows = tokens.segment * max(tokens.spectrum, 1)
    if tokens.context < 4 * rows:
        raise UsageError(f"tokens.context={tokens.context} holds fewer than 4 segments of {rows} rows: raise it")
    if tokens.normalize == "row":
        raise UsageError("tokens.normalize=row is for features of nodes: set tokens.normalize=standard or none")
    if tokens.spectrum == 1 or tokens.spectrum % 2:
        raise UsageError(f"tokens.spectrum={tokens.spectrum} must be an even number, or 0 for raw values")
    if not tokens.spectrum and (tokens.bands > 1 or mask.group != "token"):
        which = f"tokens.bands={tokens.bands}" if tokens.bands > 1 else f"mask.group={mask.group}"
        raise UsageError(f"{which} is for a spectrogram: set tokens.spectrum too, or leave it out")
    if recipe.encoder.channels != "mixed":
        return
    if mask.act == "token":
        raise UsageError("encoder.channels=mixed reads raw values, where a learned token is none: set mask.act=zero")
    if recipe.terms.infonce.layers:
        raise UsageError(
            f"terms.infonce.layers={recipe.terms.infonce.layers}: with encoder.channels=mixed a latent is of a step, "
            "no token: set terms.infonce.layers=0"
        )
    for name, head in recipe.heads.items():
        if head.target == "latent":
            raise UsageError(
                f"heads.{name}.target=latent: with encoder.channels=mixed a latent is of a step, no token: choose "
                "another target"
            )
        if head.remask != "none":
            raise UsageError(
                f"heads.{name}.remask={head.remask}: with encoder.channels=mixed a latent is of a step, no token: "
                f"set heads.{name}.remask=none"
            )


def _image(recipe: Recipe) -> None:
    if recipe.tokens.normalize == "row":
        raise UsageError("tokens.normalize=row is for features of nodes: set tokens.normalize=standard or none")
    for name, head in recipe.heads.items():
        if head.decoder == "cross" and head.kind == "all":
            raise UsageError(f"heads.{name}.decoder=cross rebuilds one type of tokens: set heads.{name}.kind to a map")


def _text(recipe: Recipe) -> None:
    if recipe.mask.strategy in ("block", "walk"):
        raise UsageError(f"mask.strategy={recipe.mask.strategy}: pieces of text stand in a row; set uniform or span")
    if recipe.tokens.normalize in ("row", "standard"):
        raise UsageError(f"tokens.normalize={recipe.tokens.normalize}: pieces of text have no values; leave it out")


_MODALITIES: dict[str, Callable[[Recipe], None]] = {"graph": _graph, "series": _series, "image": _image, "text": _text}
