from pathlib import Path

import pytest

from avshare_jax.data.errors import DatasetError
from avshare_jax.data.sources import annotations
from avshare_jax.data.sources.annotations import Place


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_csv_rows_with_all_that_occurs(tmp_path):
    path = write(
        tmp_path / "a.csv", b'\xef\xbb\xbfid, text ,c\r\n\r\n1, "a, b" , x\r\n2,"two\r\nlines ""q""",y\r\n3,,z\r\n'
    )
    with pytest.raises(DatasetError, match=r"a\.csv, line 3: this is no valid csv row"):  # space after the last quote
        list(annotations.csv_rows(path))
    path = write(path, path.read_bytes().replace(b'" ,', b'",'))
    assert list(annotations.csv_rows(path)) == [
        (Place(path, 1), ["id", "text", "c"]),
        (Place(path, 3), ["1", "a, b", "x"]),
        (Place(path, 4), ["2", 'two\r\nlines "q"', "y"]),
        (Place(path, 6), ["3", "", "z"]),
    ]
    records = list(annotations.csv_records(path, "id", "c"))
    assert records[-1] == (Place(path, 6), {"id": "3", "text": "", "c": "z"})
    assert str(records[-1][0]) == f"{path}, line 6"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a.csv cannot be read: No such file"),
        (b"", "a.csv needs a header with the columns id,c; it lacks id, c"),
        (b"id,b\n1,2\n", "needs a header with the columns id,c; it lacks c"),
        (b"id,b,c\n1,2,3,\n1,2\n", "a.csv, line 3: the row has 2 values instead of 3"),
        (b"id,c\n1,2,3\n", "a.csv, line 2: the row has 3 values instead of 2"),
        (b'id,c\n1,2\n3,"never\nclosed\n', "a.csv, line 3: this is no valid csv row"),
        (b"id,c\n\xfc,1\n", "a.csv is not UTF-8 text"),
    ],
)
def test_unusable_csv_files_get_a_sentence(tmp_path, content, message):
    if content is not None:
        write(tmp_path / "a.csv", content)
    with pytest.raises(DatasetError, match=message):
        list(annotations.csv_records(tmp_path / "a.csv", "id", "c"))


def test_text_lines(tmp_path):
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\n\r\n  two 2 \r\nthree")
    assert list(annotations.text_lines(path)) == [
        (Place(path, 1), "one"),
        (Place(path, 3), "two 2"),
        (Place(path, 4), "three"),
    ]
    with pytest.raises(DatasetError, match="not UTF-8"):
        list(annotations.text_lines(write(path, b"\xff\xfe")))
    with pytest.raises(DatasetError, match="cannot be read: Is a directory"):
        list(annotations.text_lines(tmp_path))


def test_annotation_files(tmp_path):
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / name).touch()
    (tmp_path / "d.csv").mkdir()
    files = annotations.annotation_files([tmp_path / "c.txt", tmp_path], "*.csv")
    assert [path.name for path in files] == ["c.txt", "a.csv", "b.csv"]
    with pytest.raises(DatasetError, match=r"holds no \*\.tsv or x\*"):
        annotations.annotation_files([tmp_path], "*.tsv", "x*")
    with pytest.raises(DatasetError, match="There is no annotation file or folder .*nowhere"):
        annotations.annotation_files([tmp_path / "nowhere"], "*.csv")


def test_cells():
    place = Place(Path("a.csv"), 7)
    assert annotations.seconds("30.500", place) == 30.5
    for text in ("", "-1", "1:30", "nan", "inf"):
        with pytest.raises(DatasetError, match=f"a.csv, line 7: '{text}' is not a time in seconds"):
            annotations.seconds(text, place)
    splits = {"train": "train", "validate": "val"}
    assert annotations.known_split("Validate", splits, place) == "val"
    with pytest.raises(DatasetError, match="line 7, has the split 'vla'; splits are train, validate"):
        annotations.known_split("vla", splits, place)
    assert annotations.class_name(" a_b  c ") == "a b c"
    with pytest.raises(DatasetError, match=r"line 7: the class '/m/1' is not in the list of the 1 classes"):
        annotations.known_class("/m/1", {"/m/0": "Speech"}, place)
    with pytest.raises(DatasetError, match=r"The list of classes a\.csv has 'x' more than once"):
        annotations.check_unique(["x", "y", "x"], place.path)
    with pytest.raises(DatasetError, match="is empty"):
        annotations.check_unique([], place.path)


def test_split_of_file():
    splits = {"train": "train", "validate": "val", "val": "val"}
    assert annotations.split_of_file(Path("train/kinetics400_val.csv"), splits) == "val"
    assert annotations.split_of_file(Path("val-validate2.csv"), splits) == "val"
    for name in ("all.csv", "training.csv", "train_val.csv"):
        with pytest.raises(DatasetError, match="has to say its split, one of train, validate, val: rename it"):
            annotations.split_of_file(Path(name), splits)
