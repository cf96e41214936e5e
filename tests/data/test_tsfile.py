from pathlib import Path

import numpy as np
import pytest

from structmae.data.tsfile import read_folder, read_ts
from structmae.errors import StructmaeError

HEAD = "#a comment\n@problemName Toy\n@timeStamps false\n@univariate false\n@equalLength false\n@classLabel true a b\n"
HEAD += "@data\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_channels_lengths_labels_and_missing_values(tmp_path: Path) -> None:
    recordings, labels = read_ts(written(tmp_path / "x.ts", HEAD + "1,2,3:4,?,6:a\n1e-3,NaN:2,-5:b\n\n7:8,9:a\n"))
    assert labels == ["a", "b", "a"]
    assert [recording.shape for recording in recordings] == [(2, 3), (2, 2), (2, 2)]
    assert recordings[0].dtype == np.float32
    np.testing.assert_array_equal(recordings[0], np.float32([[1, 2, 3], [4, np.nan, 6]]))
    np.testing.assert_array_equal(recordings[1], np.float32([[1e-3, np.nan], [2, -5]]))
    np.testing.assert_array_equal(recordings[2], np.float32([[7, np.nan], [8, 9]]))  # a channel that ends early


def test_without_labels(tmp_path: Path) -> None:
    recordings, labels = read_ts(written(tmp_path / "x.ts", "@classLabel false\n@data\n1,2\n3,4\n"))
    assert labels is None
    assert np.concatenate(recordings).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD.replace("@timeStamps false", "@timeStamps true") + "(0,1):a\n", "@timeStamps true: "),
        (HEAD.replace("@classLabel true a b", "@targetlabel true"), "@targetLabel true: "),
        (HEAD, "no recording below @data"),
        ("@problemName x\n", "no @data line"),
        ("a,b\n1,2\n", "line 1 comes before @data and is no @ entry"),
        (HEAD + "1,2:3,4:c\n", "line 8 has the label 'c', which is not among those of @classLabel"),
        (HEAD + "1,2:3,4:a\n1,2:b\n", "line 9 has 1 channels; the first recording has 2"),
        (HEAD + "1,x:3,4:a\n", "line 8 holds 'x', which is no number"),
        (HEAD + "(0,1),(1,2):3,4:a\n", "stamps in brackets are not read"),
        (HEAD + ":a\n", "line 8 has no values"),
    ],
)
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StructmaeError, match=message):
        read_ts(written(tmp_path / "x.ts", text))


def test_a_binary_file(tmp_path: Path) -> None:
    (tmp_path / "x.ts").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(StructmaeError, match="cannot be read as text"):
        read_ts(tmp_path / "x.ts")


def test_a_folder_has_a_given_split(tmp_path: Path) -> None:
    written(tmp_path / "Toy_TRAIN.ts", HEAD + "1,2:3,4:a\n1,2,3:3,4,5:b\n")
    with pytest.raises(StructmaeError, match=r"no Toy_TEST\.ts beside Toy_TRAIN\.ts"):
        read_folder(tmp_path)
    written(tmp_path / "Toy_TEST.ts", HEAD + "9:8:b\n")
    recordings, labels, split, name = read_folder(tmp_path)
    assert (len(recordings), labels, name) == (3, ["a", "b", "b"], "Toy")
    assert split is not None
    assert {key: part.tolist() for key, part in split.items()} == {"train": [0, 1], "validation": [], "test": [2]}
    written(tmp_path / "Toy_TEST.ts", HEAD + "9:8:7:b\n")
    with pytest.raises(StructmaeError, match="Do the two files go together"):
        read_folder(tmp_path)


def test_a_folder_without_a_pair(tmp_path: Path) -> None:
    with pytest.raises(StructmaeError, match=r"no NAME_TRAIN\.ts in this folder"):
        read_folder(tmp_path)
    for name in ("A", "B"):
        written(tmp_path / f"{name}_TRAIN.ts", HEAD)
    with pytest.raises(StructmaeError, match=r"2 files NAME_TRAIN\.ts"):
        read_folder(tmp_path)
