import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structmae import image as modality
from structmae.data.image_loading import load_images
from structmae.errors import StructmaeError, UsageError
from structmae.options import DataOptions, TokenOptions
from structmae.recipe import Recipe
from structmae.tokens import Source
from structmae.tokens.image import ImageSource, ImageTokenizer


def fitted(images, **options):
    return ImageTokenizer.fit(images, Recipe(modality="image", tokens=TokenOptions(**options)))


def random(*shape, seed=0, missing=0.0, maps=None):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=shape) * np.arange(1, shape[1] + 1)[:, None, None] + 5).astype(np.float32)
    x[rng.random(shape) < missing] = np.nan
    images = load_images(x)
    return images if maps is None else replace(images, maps=maps)


@given(
    seed=st.integers(0, 10**6),
    patch=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    maps=st.sampled_from([(("image", 2),), (("a", 1), ("b", 1)), (("a", 1), ("b", 3), ("c", 2))]),
    missing=st.sampled_from([0.0, 0.6]),
)
def test_tokens_are_patches_by_image_map_and_place(seed, patch, grid, maps, missing):
    """Against a loop over values. Joined they are the images again."""
    channels, (rows, columns) = sum(count for _, count in maps), grid
    images = random(4, channels, rows * patch, columns * patch, seed=seed, missing=missing, maps=maps)
    made = fitted(images, patch=patch)
    x, ids = made.normalize(images.x), torch.arange(4) * 3 + 1
    part = made.tokens(x, ~x.isnan(), ids)["patch"]
    most = max(count for _, count in maps)
    assert (made.width, made.kinds, made.grid) == (most * patch**2, tuple(name for name, _ in maps), grid)
    assert part.grid == (grid if len(maps) == 1 else (len(maps), *grid))
    assert torch.equal(part.item_id, ids)
    token = 0
    for image in range(4):
        assert part.ptr[image] == token
        first = 0
        for kind, (_, count) in enumerate(maps):
            for place in range(rows * columns):
                i, j = place // columns * patch, place % columns * patch
                values = x[image, first : first + count, i : i + patch, j : j + patch].reshape(-1)
                there = torch.cat([~values.isnan(), torch.zeros(made.width - len(values), dtype=torch.bool)])
                expected = torch.cat([values.nan_to_num(0), torch.zeros(made.width - len(values))])
                assert torch.equal(part.values[token], expected)
                assert torch.equal(torch.ones_like(there) if part.observed is None else part.observed[token], there)
                assert (part.valid is None or bool(part.valid[token])) == bool(there.any())
                assert part.position[token] == place
                assert part.kind is None if len(maps) == 1 else part.kind[token] == kind
                token += 1
            first += count
    assert len(part) == part.ptr[-1] == token
    assert torch.equal(made.join(part.values), x.nan_to_num(0))
    assert torch.allclose(made.unnormalize(x), images.x, atol=1e-5, equal_nan=True)


def test_the_scale_is_that_of_observed_training_values():
    images = random(40, 2, 4, 4, missing=0.2)
    changed = images.x.clone()
    changed[images.split["test"]] += 100
    changed[:, 1] = 7.0
    made = fitted(replace(images, x=changed), patch=2)
    values = images.x[images.split["train"], 0]
    assert made.mean.tolist() == pytest.approx([float(values[~values.isnan()].mean()), 7.0])
    assert made.deviation.tolist() == pytest.approx([float(values[~values.isnan()].std(correction=0)), 1.0])
    plain = fitted(images, patch=2, normalize="none")
    assert torch.equal(plain.normalize(images.x).nan_to_num(-1), images.x.nan_to_num(-1))


def test_one_map_may_be_missing():
    """What was not observed at all is not valid, and does not reach the values."""
    images = load_images("digits-maps")
    x = images.x.clone()
    x[:, 1] = torch.nan
    made = fitted(images, patch=4)
    part = made.tokens(made.normalize(x[:3]), ~x[:3].isnan(), torch.arange(3))["patch"]
    assert torch.equal(part.valid, part.kind != 1)
    assert not part.values[~part.valid].any()


def test_a_palette_of_few_colours_has_them_all():
    """Digits have 17 greys. What is decoded and joined is then the image itself."""
    images = load_images("digits-images")
    made = fitted(images, palette=32, patch=5)
    assert (made.vocabulary, made.width, made.patch, made.grid) == (17, 0, 1, (8, 8))
    part = made.tokens(made.normalize(images.x[:9]), None, torch.arange(9))["patch"]
    assert part.values.shape == (9 * 64, 0)
    assert torch.equal(part.ids, (images.x[:9] * 16).long().reshape(-1))
    back = made.unnormalize(made.join(made.decode(part.ids)))
    assert torch.allclose(back, images.x[:9], atol=1e-6)


@pytest.mark.parametrize("colours", [5, 300])
def test_a_palette_is_the_same_every_time_and_the_nearest_counts(colours):
    """300 of 12,000 colours go by mini-batches, 5 of 200 in one go."""
    images = random(*((150, 3, 10, 12) if colours == 300 else (10, 3, 5, 6)))
    made, again = fitted(images, palette=colours), fitted(images, palette=colours)
    assert torch.equal(made.palette, again.palette)
    assert made.vocabulary == colours
    bright = made.unnormalize(made.palette.T[None, :, :, None])[0].sum((0, 2))
    assert torch.equal(bright, bright.sort().values)
    x = made.normalize(images.x[:4])
    x[0, 1, 2, 3] = torch.nan
    part = made.tokens(x, ~x.isnan(), torch.arange(4))["patch"]
    pixels = x.permute(0, 2, 3, 1).reshape(-1, 3)
    gone = pixels.isnan().any(1)
    assert torch.equal(part.valid, ~gone)
    distance = (pixels[:, None] - made.palette).square().sum(-1)
    assert torch.equal(part.ids[~gone], distance[~gone].argmin(1))


def test_k_means_is_better_than_any_sample():
    """The mean distance to the centres is below that to as many pixels."""
    images = random(20, 3, 6, 6)
    made = fitted(images, palette=16)
    pixels = made.normalize(images.x[images.split["train"]]).permute(0, 2, 3, 1).reshape(-1, 3)
    error = (made.decode(torch.cdist(pixels, made.palette).argmin(1)) - pixels).square().sum(1).mean()
    drawn = pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:16]]
    assert error < 0.8 * torch.cdist(pixels, drawn).min(1).values.square().mean()


@pytest.mark.parametrize("options", [{"patch": 2}, {"palette": 8}])
def test_config_and_weights_are_all_there_is(options):
    images = load_images("digits-images")
    made = fitted(images, **options)
    again = ImageTokenizer.from_config(json.loads(json.dumps(made.config())))
    again.load_state_dict(made.state_dict())
    assert again.config() == made.config()
    x = made.normalize(images.x[:5])
    first, second = (each.tokens(x, None, torch.arange(5))["patch"] for each in (made, again))
    assert torch.equal(first.values, second.values)
    assert first.ids is second.ids is None or torch.equal(first.ids, second.ids)


@pytest.mark.parametrize(
    ("shape", "options", "error", "message"),
    [
        ((4, 1, 8, 8), {"patch": 3}, StructmaeError, "tokens.patch=3 does not divide the 8 x 8.*set tokens.patch=2$"),
        ((4, 1, 9, 6), {"patch": 6}, StructmaeError, "9 x 6 pixels.*set tokens.patch=3$"),
        ((4, 1, 7, 5), {"patch": 2}, StructmaeError, "set tokens.patch=1$"),
        ((4, 1, 8, 8), {"normalize": "row"}, UsageError, "tokens.normalize=row is for features of graphs"),
    ],
)
def test_settings_that_do_not_fit(shape, options, error, message):
    with pytest.raises(error, match=message):
        fitted(random(*shape), **options)


def test_a_palette_is_of_one_map_that_was_observed():
    with pytest.raises(UsageError, match=r"tokens\.palette=8 is for images of one map, and digits-maps has 3"):
        fitted(load_images("digits-maps"), palette=8)
    images = random(4, 1, 2, 2)
    x = images.x.clone()
    x[images.split["train"]] = torch.nan
    with pytest.raises(StructmaeError, match="no training pixel is observed"):
        fitted(replace(images, x=x), palette=4)


def test_images_of_another_size_are_refused():
    made = fitted(random(4, 1, 8, 8), patch=2)
    with pytest.raises(StructmaeError, match="images of 1 x 8 x 6: this encoder reads 1 x 8 x 8"):
        made.tokens(torch.zeros(2, 1, 8, 6), None, torch.arange(2))


def test_the_source_goes_through_training_images_and_sweeps_all():
    images = random(20, 2, 4, 4, missing=0.1)
    made = fitted(images, patch=2)
    source = ImageSource(images, made)
    assert isinstance(source, Source)
    assert source.num_items == 14
    assert source.target(torch.arange(2)) is None
    items = torch.tensor([3, 0])
    batch, rows = source.batch(items)["patch"], images.split["train"][[3, 0]]
    assert torch.equal(batch.item_id, rows)
    assert torch.equal(made.join(batch.values), made.normalize(images.x[rows]).nan_to_num(0))
    swept = [part["patch"] for part in source.sweep(at_once=6)]
    assert torch.cat([part.item_id for part in swept]).tolist() == list(range(20))
    values = torch.cat([part.values for part in swept])
    assert torch.equal(values, source.at(torch.arange(20))["patch"].values)


def shifted(x, down, across):
    """By a loop: a pixel comes from where it was, or from the edge."""
    out = torch.empty_like(x)
    height, width = x.shape[1:]
    for i in range(height):
        for j in range(width):
            out[:, i, j] = x[:, min(max(i - down, 0), height - 1), min(max(j - across, 0), width - 1)]
    return out


def test_augmented_images_are_moved_each_its_own_way():
    images = random(60, 2, 4, 6)
    made = fitted(images, patch=2)
    source = ImageSource(images, made)
    items = torch.arange(40)
    part = source.augmented(items, "shift", 2, seed=1, visit=3, view=1)["patch"]
    assert torch.equal(part.item_id, source.rows[items])
    moved, plain = made.join(part.values), made.normalize(images.x[source.rows[items]])
    ways = [(down, across) for down in range(-2, 3) for across in range(-2, 3)]
    found = [[way for way in ways if torch.equal(shifted(x, *way), y)] for x, y in zip(plain, moved, strict=True)]
    assert all(len(way) == 1 for way in found)
    assert {way[0][0] for way in found} == {way[0][1] for way in found} == {-2, -1, 0, 1, 2}
    assert len({way[0] for way in found}) > 12


def test_a_shift_depends_on_seed_view_visit_and_row_alone():
    images = random(60, 1, 6, 6)
    source = ImageSource(images, fitted(images, patch=2))
    items, base = torch.arange(30), {"seed": 1, "visit": 3, "view": 1}

    def values(items, **changes):
        return source.augmented(items, "shift", 1, **{**base, **changes})["patch"].values.reshape(len(items), -1)

    torch.manual_seed(9)
    state = torch.random.get_rng_state()
    whole = values(items)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(values(items[[7, 2]]), whole[[7, 2]])
    for changes in ({"seed": 2}, {"visit": 4}, {"view": 2}):
        assert (values(items, **changes) != whole).any(1).sum() > 15
    with pytest.raises(UsageError, match="augmentation 'turn' does not exist: there is shift"):
        source.augmented(items, "turn", 1, **base)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("digits-images", {"patch": 2}, "1797 images, 1 channel of 8 x 8 pixels; 4 x 4 patches of 2 x 2"),
        ("digits-images", {"palette": 9}, "1 channel of 8 x 8 pixels; 64 tokens, a pixel each, of 9 colours"),
        (
            "digits-maps",
            {"patch": 4},
            "3 channels of 8 x 8 pixels in 3 maps (image, gradient, threshold); 2 x 2 patches of 4 x 4 each",
        ),
    ],
)
def test_the_modality(name, options, words):
    images = modality.load(name, DataOptions())
    made = modality.fit(images, Recipe(modality="image", tokens=TokenOptions(**options)))
    assert modality.describe(images, made).startswith(f"{name}: ")
    assert modality.describe(images, made).endswith(words)
    assert modality.tasks(images) == ("image_classification", "reconstruction", "clustering")
    assert modality.tasks(replace(images, y=None)) == ("reconstruction",)
    with pytest.raises(UsageError, match="--nodes goes with an edge table; this recipe reads images"):
        modality.load(name, DataOptions(), nodes="nodes.csv")
