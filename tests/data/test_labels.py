import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from structmae.data.labels import encode_integers, encode_names
from structmae.errors import StructmaeError


def test_classes_keep_their_names_in_numeric_order() -> None:
    y, classes, notes = encode_integers(torch.tensor([10, 2, -1, 10, 7]))
    assert y.tolist() == [2, 0, -1, 2, 1]
    assert classes == ("2", "7", "10")
    assert notes == []


def test_minus_one_and_one_are_two_classes() -> None:
    y, classes, notes = encode_integers(torch.tensor([-1, 1, 1, -1]))
    assert y.tolist() == [0, 1, 1, 0]
    assert classes == ("-1", "1")
    assert "two classes" in notes[0]


def test_blank_cells_beside_a_single_class_are_no_second_class() -> None:
    y, classes, _ = encode_names(["1", None, "1", " "], "t.csv")
    assert y.tolist() == [0, -1, 0, -1]
    assert classes == ("1",)


@given(st.lists(st.none() | st.sampled_from(["red", "green", "Blue", "NA", "7a"]), min_size=1))
def test_names_come_back(cells: list[str | None]) -> None:
    y, classes, _ = encode_names(cells, "t.csv")
    assert [None if code < 0 else classes[code] for code in y.tolist()] == cells


def test_numbers_written_as_fractions_are_the_same_class() -> None:
    y, classes, _ = encode_names(["1.0", "1", "2."], "t.csv")
    assert (y.tolist(), classes) == ([0, 0, 1], ("1", "2"))


def test_labels_that_are_no_whole_numbers_are_refused() -> None:
    with pytest.raises(StructmaeError, match=r"t\.csv: label 0\.5 is not a whole number"):
        encode_names(["1", "0.5"], "t.csv")
