import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structmae import registry
from structmae.errors import StructmaeError, UsageError
from structmae.recipe import Override, Recipe, changes, data_options, from_tree, resolve

# Hou et al., KDD 2022, table 9, and the configuration file of the authors' repository.
PUBLISHED = """
name        level hidden heads layers lr     wd   epochs ratio random gamma probe pool batch
cora        node  512    4     2      1e-3   2e-4 1500   0.5   0.05   3     1e-4  none -
citeseer    node  512    2     2      1e-3   2e-5 300    0.5   0.1    1     0.01  none -
pubmed      node  1024   4     2      1e-3   1e-5 1000   0.75  0      3     1e-4  none -
mutag       graph 32     -     5      5e-4   0    20     0.75  0.1    2     -     sum  64
imdb-binary graph 512    -     2      1.5e-4 0    60     0.5   0      1     -     mean 32
imdb-multi  graph 512    -     3      1.5e-4 0    50     0.5   0      1     -     mean 32
proteins    graph 512    -     3      1.5e-4 0    100    0.5   0      1     -     max  32
nci1        graph 512    -     2      1e-3   0    300    0.25  0.1    2     -     mean 16
"""
KEYS = {
    "hidden": "encoder.hidden", "heads": "encoder.heads", "layers": "encoder.layers", "lr": "train.lr",
    "wd": "train.weight_decay", "epochs": "train.epochs", "ratio": "mask.ratio", "random": "mask.random",
    "gamma": "heads.features.gamma", "probe": "probe.weight_decay", "pool": "encoder.pool", "batch": "train.batch_size",
}  # fmt: skip


HEAD, *ROWS = [line.split() for line in PUBLISHED.strip().splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_published_settings(row):
    name, level, *values = row
    recipe = resolve("graphmae", data=name, level=level)
    found = recipe.settings()
    for column, value in zip(HEAD[2:], values, strict=True):
        if value != "-":
            assert str(found[KEYS[column]]) == value or found[KEYS[column]] == float(value), column
    assert recipe.size == "published"
    assert found["encoder.layer"] == ("gat" if level == "node" else "gin")
    assert found["encoder.norm"] == ("none" if level == "node" else "batchnorm")
    assert found["probe.lr"] == 0.01
    assert found["probe.epochs"] == 300


def test_later_layers_win(tmp_path):
    base = Recipe(
        name="mine",
        sizes={"tiny": {"train.lr": 0.2, "train.epochs": 2, "mask.ratio": 0.2, "encoder.layers": 2}},
        overrides=(
            Override("level:node", {"train.lr": 0.25}),
            Override("d", {"train.lr": 0.3, "train.epochs": 3, "mask.ratio": 0.3}, "tiny"),
        ),
    )
    resolved = resolve(base, {"size": "tiny", "train.lr": "0.5"}, data="d", level="node")
    assert (resolved.train.lr, resolved.train.epochs, resolved.mask.ratio, resolved.encoder.layers) == (0.5, 3, 0.3, 2)
    assert resolve(base, {"size": "tiny"}, data="other", level="node").train.lr == 0.25
    file = tmp_path / "r.toml"
    file.write_text('recipe = "graphmae"\n[train]\nepochs = 7\nlr = 0.4\n')
    resolved = resolve(file, {"train.lr": "0.5"}, data="cora", level="node")
    assert (resolved.train.epochs, resolved.train.lr, resolved.mask.random) == (7, 0.5, 0.05)


def test_size_is_tiny_only_where_nothing_is_published():
    assert resolve("graphmae", data="cora", level="node").size == "published"
    assert resolve("graphmae", data="citations", level="node").size == "tiny"
    assert resolve("graphmae", {"size": "published"}, data="citations", level="node").train.epochs == 1500
    tiny = resolve("graphmae", {"size": "tiny"}, data="cora", level="node")
    assert (tiny.encoder.hidden, tiny.train.epochs) == (256, 150)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mask.ratoi", "0.5", "did you mean mask.ratio"),
        ("mask.ratio", "1.5", "at most 1"),
        ("mask.ratio", "0", "more than 0"),
        ("mask.ratio", "nan", "out of range"),
        ("mask.ratio", "half", "is not a number"),
        ("train.epochs", "2.5", "is not a whole number"),
        ("train.epochs", True, "is not a whole number"),
        ("train.lr", "inf", "out of range"),
        ("train.seed", "-1", "at least 0"),
        ("data.undirected", "yes", "true or false"),
        ("encoder.layer", "gatt", "did you mean gat"),
        ("encoder.heads", "3", "multiple of encoder.heads"),
        ("size", "huge", "published"),
        ("mask.keep", "0.99", "at most 1"),
    ],
)
def test_bad_values_are_named(key, value, words):
    with pytest.raises(UsageError, match=words) as error:
        resolve("graphmae", {key: value})
    assert str(value) in str(error.value) or key in str(error.value)
    assert "\n" not in str(error.value)


def test_scientific_notation_is_a_number():
    assert resolve("graphmae", {"train.lr": "2e-4"}).train.lr == 2e-4


@given(
    ratio=st.floats(0.01, 1),
    lr=st.floats(1e-8, 10),
    epochs=st.integers(1, 10**6),
    seed=st.integers(0, 2**32 - 1),
    undirected=st.booleans(),
)
def test_toml_and_config_give_the_recipe_back(tmp_path_factory, ratio, lr, epochs, seed, undirected):
    settings = {
        "mask.ratio": ratio, "train.lr": lr, "train.epochs": epochs, "train.seed": seed, "data.undirected": undirected,
    }  # fmt: skip
    recipe = resolve("graphmae", settings, data="mutag", level="graph")
    file = tmp_path_factory.getbasetemp() / "again.toml"
    file.write_text(recipe.to_toml())
    assert resolve(file, data="cora", level="node").settings() == recipe.settings()
    assert from_tree(recipe.describe()).settings() == recipe.settings()
    assert tomllib.loads(recipe.to_toml())["recipe"] == "graphmae"


def test_a_file_may_add_a_head(tmp_path):
    file = tmp_path / "two.toml"
    file.write_text('recipe = "graphmae"\n[heads.again]\nlayer = "gin"\nloss = "mse"\nweight = 0.5\n')
    heads = resolve(file).heads
    assert set(heads) == {"features", "edges", "again"}
    assert heads["again"].loss == "mse"


@pytest.mark.parametrize(
    ("text", "error"),
    [("[mask\n", StructmaeError), ("recipe = 3\n", UsageError), ("recipe = 'graphmea'\n", UsageError),
     ("[mask]\nratio = '0.5x'\n", UsageError), ("[mask]\ntypo = 1\n", UsageError), ("mask = 3\n", UsageError)],
)  # fmt: skip
def test_bad_files_are_refused(tmp_path, text, error):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(error):
        resolve(file)
    with pytest.raises(StructmaeError):
        resolve(tmp_path / "missing.toml")


def test_changes_names_what_differs():
    stored = resolve("graphmae", {"train.epochs": 5}, data="cora", level="node")
    assert changes(stored, "graphmae", {"train.epochs": "5", "size": "published"}) == []
    assert changes(stored, None, {"train.epochs": "6"}) == [("train.epochs", 5, 6)]
    assert changes(stored, None, {"size": "tiny"}) == [("size", "published", "tiny")]


def test_data_options_need_no_data_set():
    assert data_options("graphmae", {"data.undirected": "false", "encoder.heads": "3"}).undirected is False


def test_a_curriculum_that_moves_nothing_is_refused():
    with pytest.raises(UsageError, match=r"set mask\.ratio_first"):
        resolve("graphmae", {"mask.curriculum": "linear", "mask.ratio": 0.5})
    assert resolve("graphmae", {"mask.curriculum": "linear", "mask.ratio_first": 0.2}).mask.ratio_first == 0.2


SERIES = ("patchtst", "tsformer", "spans", "spectrogram")


@pytest.mark.parametrize("name", SERIES)
@given(
    ratio=st.floats(0.01, 0.99), context=st.integers(100, 5000),
    data=st.sampled_from([None, "lorenz96", "japanesevowels"]),
    level=st.sampled_from(["panel", "sample"]), size=st.sampled_from(["tiny", "published"]),
)  # fmt: skip
def test_toml_and_config_give_a_recipe_of_series_back(tmp_path_factory, name, ratio, context, data, level, size):
    settings = {"mask.ratio": ratio, "tokens.context": context, "data.time": "ds", "size": size}
    recipe = resolve(name, settings, data=data, level=level)
    file = tmp_path_factory.getbasetemp() / "series.toml"
    file.write_text(recipe.to_toml())
    again = resolve(file, data="lorenz96", level="sample")
    assert again.settings() == recipe.settings()
    assert from_tree(recipe.describe()).settings() == recipe.settings()
    assert (again.modality, recipe.data.time, recipe.size) == ("series", "ds", size)
    assert changes(recipe, name, {**settings, "mask.ratio": str(ratio)}) == []


@pytest.mark.parametrize("name", registry.names("recipe"))
def test_every_built_in_recipe_holds_by_its_own_rules(name):
    """At each size, on each data set and level that it names."""
    recipe = registry.get("recipe", name)
    assert recipe.name == name
    assert recipe.summary
    assert recipe.paper
    levels = {"graph": ("node", "graph"), "series": ("panel", "sample")}.get(recipe.modality, (recipe.modality,))
    for size in ("published", *recipe.sizes):
        for level in levels:
            for data in (None, *(o.on for o in recipe.overrides if not o.on.startswith("level:"))):
                assert resolve(name, {"size": size}, data=data, level=level).size == size


@pytest.mark.parametrize(
    ("recipe", "key", "words"),
    [
        ("patchtst", "mask.edge_ratio", "did you mean mask.ratio"),
        ("patchtst", "data.undirected", "unknown key 'data.undirected'"),
        ("patchtst", "encoder.layer", "did you mean encoder.layers"),
        ("patchtst", "heads.segments.layer", "did you mean heads.segments.layers"),
        ("spans", "heads.segments.loss", "unknown key 'heads.segments.loss'"),
        ("graphmae", "tokens.context", "unknown key 'tokens.context'"),
        ("graphmae", "mask.group", "unknown key 'mask.group'"),
        ("graphmae", "finetune.horizon", "unknown key 'finetune.horizon'"),
    ],
)
def test_options_of_another_modality_are_unknown(recipe, key, words):
    with pytest.raises(UsageError, match=words):
        resolve(recipe, {key: "1"})


@pytest.mark.parametrize(
    ("recipe", "settings", "words"),
    [
        ("patchtst", {"tokens.normalize": "row"}, "set tokens.normalize=standard"),
        ("patchtst", {"mask.strategy": "weighted"}, "set mask.weights=variance"),
        ("spectrogram", {"tokens.spectrum": "1"}, "tokens.spectrum=1 must be an even number"),
        ("spectrogram", {"tokens.spectrum": "7"}, "tokens.spectrum=7 must be an even number"),
        ("patchtst", {"tokens.bands": "2"}, "tokens.bands=2 is for a spectrogram"),
        ("patchtst", {"mask.group": "row"}, "mask.group=row is for a spectrogram"),
        ("spans", {"mask.act": "token"}, "set mask.act=zero"),
        ("spans", {"heads.points.remask": "random"}, "set heads.points.remask=none"),
        ("patchtst", {"mask.act": "drop"}, "set heads.segments.layers=1"),
        ("tsformer", {"heads.segments.layers": "0"}, "set heads.segments.layers=1"),
        ("patchtst", {"heads.segments.of": "node"}, "a recipe of series has segment tokens"),
        ("patchtst", {"encoder.heads": "3"}, "multiple of encoder.heads=3"),
        ("patchtst", {"tokens.context": "3"}, "at least 4"),
        ("graphmae", {"mask.act": "drop"}, "set mask.act=token or zero"),
        ("graphmae", {"mask.scope": "set"}, "set mask.scope=item or batch"),
        ("graphmae", {"heads.features.layers": "0"}, "has a layer or more"),
        ("graphmae", {"heads.features.of": "segment"}, "a recipe of graph has node and edge and pair tokens"),
    ],
)
def test_what_does_not_go_together_is_refused(recipe, settings, words):
    with pytest.raises(UsageError, match=words) as error:
        resolve(recipe, settings)
    assert "\n" not in str(error.value)


def test_what_goes_together_is_taken():
    assert resolve("patchtst", {"mask.act": "drop", "heads.segments.layers": "1"}).mask.act == "drop"
    assert resolve("patchtst", {"mask.strategy": "weighted", "mask.weights": "variance"}).mask.weights == "variance"
    assert resolve("patchtst", {"tokens.spectrum": 8, "tokens.bands": 2, "mask.group": "row"}).tokens.bands == 2
