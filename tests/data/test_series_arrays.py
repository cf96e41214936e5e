from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from structmae.data import load_series
from structmae.errors import StructmaeError, UsageError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 2, 30))
Y = np.arange(20) % 2


def test_an_array_is_a_panel() -> None:
    array = RNG.normal(size=(50, 3))
    series = load_series(array)
    assert (series.level, series.channels, series.spec) == ("panel", ("c0", "c1", "c2"), {})
    np.testing.assert_array_equal(series.values, array.astype(np.float32))
    for other in (array.tolist(),):
        with pytest.raises(StructmaeError, match="of type list; give a table, an array"):
            load_series(other)
    assert load_series(torch.from_numpy(array)).fingerprint() == series.fingerprint()
    assert load_series(array[:, 0]).values.shape == (50, 1)
    assert load_series((array * 10).astype(np.int64)).values.dtype == np.float32
    array[7] = 99  # a copy was taken
    assert series.values[7, 0] != 99


def test_samples_are_packed_recording_by_recording() -> None:
    series = load_series((X, Y))
    assert (series.level, series.num_items, series.horizons, series.period) == ("sample", 20, (), 1)
    assert series.ptr.tolist() == list(range(0, 601, 30))
    np.testing.assert_array_equal(series.windows(series.ptr[:-1], 30), X.astype(np.float32))
    assert series.y is not None
    np.testing.assert_array_equal(series.y, Y)
    assert series.classes == ("0", "1")
    assert load_series((X[:, 0], Y)).channels == ("c0",)  # (samples, steps): one channel


def test_the_split_of_samples_is_stratified_and_fixed() -> None:
    series = load_series((X, Y))
    assert {key: len(part) for key, part in series.split.items()} == {"train": 14, "validation": 0, "test": 6}
    assert series.y is not None
    assert np.bincount(series.y[series.split["test"]]).tolist() == [3, 3]
    assert sorted(np.concatenate(list(series.split.values())).tolist()) == list(range(20))
    assert series.split["test"].tolist() == load_series((X, Y)).split["test"].tolist()
    thirds = load_series((X, Y), split="0.5/0.25/0.25")
    assert [len(part) for part in thirds.split.values()] == [10, 5, 5]
    counts = load_series((X, Y), split="8/4/2")
    assert [len(part) for part in counts.split.values()] == [8, 4, 2]
    assert counts.split_source == "made: stratified 8 / 4 / 2 labelled recordings, seed 0"
    with pytest.raises(StructmaeError, match="split 18/4/2 needs 24 labelled recordings; there are 20"):
        load_series((X, Y), split="18/4/2")


def test_unlabelled_samples_train() -> None:
    y = np.where(np.arange(20) < 4, np.nan, Y)
    series = load_series((X, y))
    assert series.y is not None
    assert series.y[:5].tolist() == [-1, -1, -1, -1, 0]
    assert {0, 1, 2, 3} <= set(series.split["train"].tolist())
    for data in (X, (X, None)):
        nothing = load_series(data)
        assert nothing.y is None
        assert [len(part) for part in nothing.split.values()] == [20, 0, 0]
        assert nothing.split_source == "none: all recordings train"


def test_splits_as_tsai_gives_them() -> None:
    two = load_series((X, Y.astype(str), (list(range(12)), list(range(12, 20)))))
    assert [part.tolist() for part in two.split.values()] == [list(range(12)), [], list(range(12, 20))]
    assert two.split_source == "given"
    assert two.notes == ("splits has two lists: the second is the test part",)
    three = load_series((X, Y, ([4, 2], np.array([9]), range(12, 15))))
    assert [part.tolist() for part in three.split.values()] == [[2, 4], [9], [12, 13, 14]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y[:-1]), r"y has shape \(19,\); X has 20 samples, so give \(20,\)"),
        ((X, np.eye(20)), "give one label a sample"),
        ((X, RNG.random(20)), "label .* is not a whole number"),
        ((X, Y, ([0, 1], [1, 2])), "splits has sample 1 twice"),
        ((X, Y, ([0, 1], [20])), "splits names sample 20 of 20"),
        ((X, Y, ([-1, 1], [2])), "splits names sample -1 of 20"),
        ((X, Y, ([], [2])), "splits has no train sample"),
        ((X, Y, ([0],)), "splits has 1 lists"),
        ((X,), "a tuple of 1"),
        ((X[0, 0], Y), r"X has shape \(30,\)"),
        (np.zeros((2, 2, 2, 2)), r"shape \(2, 2, 2, 2\)"),
        (np.zeros((3, 60)), r"shape \(3, 60\) \(steps, channels\): 3 rows, too few rows"),
        (np.zeros((1, 3)), "at least two steps and one channel"),
        (np.zeros((0, 2, 3)), "the set is empty"),
        (np.zeros((3, 2, 0)), "a recording is empty"),
        (np.array(["a", "b"]), "has the type <U1; give numbers"),
        (np.array([1j, 2]), "has the type complex128; give numbers"),
        ((np.full((20, 2, 30), np.nan), Y), "channel 'c0', 'c1' has no observed value in the train part"),
        (np.where(np.arange(60) == 7, np.inf, 1.0), "column 'c0' is infinite in row 7"),
        (None, "of type NoneType"),
    ],
)
def test_refusals(data: Any, message: str) -> None:
    with pytest.raises(StructmaeError, match=message):
        load_series(data)


@pytest.mark.parametrize(
    ("split", "borders"),
    [
        ("auto", [0, 70, 80, 100]),
        ("0.6/0.2/0.2", [0, 60, 80, 100]),
        (".5/.1/.1", [0, 50, 60, 70]),
        ("50/20/10", [0, 50, 70, 80]),
        ("1/1/1", [0, 1, 2, 3]),
    ],
)
def test_the_borders_of_a_panel(split: str, borders: list[int]) -> None:
    series = load_series(RNG.normal(size=(100, 2)), split=split)
    assert [series.split[key].tolist() for key in ("train", "validation", "test")] == [
        borders[at : at + 2] for at in range(3)
    ]


@pytest.mark.parametrize("split", ["a/b/c", "0.5/0.5", "0.7/0.4/0.2", "-1/1/1", "0/0.5/0.5", "nan/0/0", "50.5/20/10"])
def test_splits_that_are_none(split: str) -> None:
    with pytest.raises(UsageError, match=f"split '{split}'"):
        load_series(RNG.normal(size=(100, 2)), split=split)


@pytest.mark.parametrize(("split", "part"), [("0.8/0/0.2", "validation"), ("90/10/0", "test")])
def test_a_panel_has_rows_in_every_part(split: str, part: str) -> None:
    with pytest.raises(StructmaeError, match=f"the {part} part of the split has none"):
        load_series(RNG.normal(size=(100, 2)), split=split)


@pytest.mark.parametrize(
    ("rows", "horizons"), [(10_000, (96, 192, 336, 720)), (2000, (96, 192)), (960, (96,)), (200, (6,)), (10, (1,))]
)
def test_horizons_are_those_that_the_parts_allow(rows: int, horizons: tuple[int, ...]) -> None:
    assert load_series(np.random.default_rng(0).normal(size=(rows, 1))).horizons == horizons


def test_npy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X[0].T)
    panel = load_series(tmp_path / "x.npy")
    assert isinstance(panel.values, np.memmap)
    assert panel.spec == {"data": str(tmp_path / "x.npy")}
    np.save(tmp_path / "s.npy", X)
    assert load_series(tmp_path / "s.npy").num_items == 20
    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY")
    for name in ("o.npy", "bad.npy"):
        with pytest.raises(StructmaeError, match=rf"{name}: not a \.npy array that can be read"):
            load_series(tmp_path / name)
    np.save(tmp_path / "t.npy", np.array(["a"]))
    with pytest.raises(StructmaeError, match="type <U1; give numbers"):
        load_series(tmp_path / "t.npy")
