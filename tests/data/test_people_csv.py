import os

import numpy as np
import pytest

from steadface.data.people_csv import NamedFolder, read_people, write_people
from steadface.errors import SteadfaceError


@pytest.fixture
def photographs(tmp_path, flat_png):
    """b.png, c.png and in/a.png, whose red is 1, 2 and 0."""
    root = tmp_path / "photographs"
    (root / "in").mkdir(parents=True)
    for value, name in enumerate(("in/a.png", "b.png", "c.png")):
        (root / name).write_bytes(flat_png(value))
    return root


@pytest.fixture
def table(tmp_path):
    def write(*lines: str, header: str = "image,person"):
        path = tmp_path / "people.csv"
        path.write_text("\n".join((header, *lines)) + "\n")
        return path

    return write


def test_the_file_says_who_is_who(photographs, table):
    faces = NamedFolder(photographs, table("in/a.png,bo", "b.png,ada", "c.png,bo"))
    assert faces.people == ("ada", "bo")
    assert faces.names == ("b.png", "c.png", "in/a.png")
    np.testing.assert_array_equal(faces.labels, [0, 1, 1])
    assert [int(faces.read(index)[0, 0, 0]) for index in range(3)] == [1, 2, 0]
    assert faces.messages == ()
    other = NamedFolder(photographs, table("in/a.png,ada", "b.png,ada", "c.png,bo"))
    assert other.fingerprint() != faces.fingerprint()


def test_images_that_the_file_leaves_out_are_counted(photographs, table):
    (photographs / "notes.txt").write_text("x")
    faces = NamedFolder(photographs, table("in/a.png,bo", "b.png,ada"))
    assert len(faces) == 2
    assert faces.skipped == {"files that are not images": 1, "images that people.csv does not name": 1}
    assert "c.png" in "".join(faces.messages)


def test_where_the_images_lie_and_what_was_left_out_is_said(photographs, table):
    people = table("in/a.png,bo", "b.png,ada")
    with pytest.raises(SteadfaceError, match=r"they lie below .*photographs, give that"):
        NamedFolder(photographs.parent, people)
    (photographs / "d.heic").write_bytes(b"x")
    with pytest.raises(SteadfaceError, match=r"are left out .*d.heic.*; skipped pictures of a kind that is not read"):
        NamedFolder(photographs, table("in/a.png,bo", "d.heic,ada"))


def test_people_of_a_file_whom_nobody_could_tell_apart_are_named(photographs, table):
    with pytest.raises(SteadfaceError, match="'Ada' and 'ada'"):
        NamedFolder(photographs, table("in/a.png,Ada", "b.png,ada"))


def test_accents_are_found_however_a_file_system_spells_them(photographs, table):
    (photographs / "b.png").rename(photographs / "Jose\u0301.png")
    assert NamedFolder(photographs, table("Jos\u00e9.png,jo", "c.png,ada")).people == ("ada", "jo")


def test_people_with_few_images_are_left_out(photographs, table):
    faces = NamedFolder(photographs, table("in/a.png,bo", "b.png,ada", "c.png,bo"), min_images=2)
    assert faces.people == ("bo",)
    assert faces.names == ("c.png", "in/a.png")
    with pytest.raises(SteadfaceError, match=r"leaves no faces.*fewer than 3 images: 2"):
        NamedFolder(photographs, table("in/a.png,bo", "b.png,ada", "c.png,bo"), min_images=3)


def test_images_that_are_not_there_are_named(photographs, table):
    (photographs / "empty.png").touch()
    with pytest.raises(SteadfaceError, match=r"names 2 images that are not below .*gone\.png, empty\.png.*relative"):
        NamedFolder(photographs, table("b.png,ada", "gone.png,ada", "empty.png,ada"))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["b.png"], r"line 2: 'b.png' is not 'image,person'"),
        (["c.png,bo", "b.png,ada,1"], r"line 3: 'b.png,ada,1' is not 'image,person'"),
        (["b.png,"], r"line 2: 'b.png,' is not 'image,person'"),
        (["b.png,ada", "b.png,bo"], r"line 3: b.png is named twice"),
    ],
)
def test_malformed_lines_are_named(table, lines, said):
    with pytest.raises(SteadfaceError, match=said):
        read_people(table(*lines))


def test_a_file_without_its_first_line_or_that_is_missing_is_explained(table, tmp_path):
    with pytest.raises(SteadfaceError, match="the first line must be image,person"):
        read_people(table(header="b.png,ada"))
    with pytest.raises(SteadfaceError, match=r"nowhere\.csv cannot be read .*give a CSV file of image,person"):
        read_people(tmp_path / "nowhere.csv")


def test_any_name_is_read_as_it_was_written(tmp_path):
    people = {'a, "b".png': "ada", "in/\udcff.png": "bo", "é\n.png": "ada"}
    write_people(tmp_path / "people.csv", people.items())
    assert read_people(tmp_path / "people.csv") == people


def test_a_line_without_end_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "people.csv"
    for content in ("a" * 1_000_000, '"' + "a,b" * 1_000_000, '"' + "a\n" * 200_000):
        path.write_text("image,person\n" + content)
        with pytest.raises(SteadfaceError, match=r"people\.csv.*(longer|larger) than"):
            read_people(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../b.png", "a\0b", "a" * 5000, "in/" * 1000 + "a.png"])
def test_no_name_leads_out_of_the_folder_or_to_anything_but_a_message(photographs, table, name):
    with pytest.raises(SteadfaceError, match="not below"):
        NamedFolder(photographs, table(f"{name},ada"))


def test_a_table_that_is_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "people.csv")
    with pytest.raises(SteadfaceError, match="a pipe"):
        read_people(tmp_path / "people.csv")
