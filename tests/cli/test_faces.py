from pathlib import Path

from steadface.data.folders import open_faces

from .conftest import Call


def test_it_writes_identity_folders(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    said = call("faces", out, "--people", 3, "--images", 2, "--size", 24, "--seed", 5)
    assert said.code == 0
    assert said.out == f"6 faces of 3 people in {out}\n"
    faces = open_faces(out)
    assert (len(faces), len(faces.people)) == (6, 3)
    assert faces.read(0).shape == (24, 24, 3)


def test_seed_and_first_person_decide_what_is_drawn(call: Call, tmp_path: Path) -> None:
    def written(name: str, *options: object) -> dict[str, bytes]:
        out = tmp_path / name
        assert call("faces", out, "--images", 1, "--size", 24, *options).code == 0
        return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.png")}

    first, again, other = (written(name, "--people", 2, "--seed", s) for name, s in (("a", 1), ("b", 1), ("c", 2)))
    assert first == again
    assert set(first.values()).isdisjoint(other.values())
    (later,) = written("d", "--people", 1, "--first", 1, "--seed", 1).items()
    assert later == sorted(first.items())[1], "the second person of the same seed"


def test_a_folder_with_something_in_it_is_left_alone(call: Call, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    said = call("faces", tmp_path)
    assert said.code == 5
    assert "not an empty folder; name another or empty it" in said.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]
