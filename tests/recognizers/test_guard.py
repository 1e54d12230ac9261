"""The guard's score by its definition, its randomness, and its false alarms where they can be known."""

import json
import math

import cv2
import numpy as np
import pytest

from steadface.data.augment import through_jpeg
from steadface.errors import SteadfaceError
from steadface.recognizers import Convention, OpenedRecognizer
from steadface.recognizers.adapters import BlackBox
from steadface.recognizers.calibration import calibrated_guard
from steadface.recognizers.contract import contract_of
from steadface.recognizers.guard import (
    Guard,
    Limits,
    View,
    Views,
    calibrate,
    disagreement,
    read_guard,
    write_guard,
)

from ..rounding import rounding

SIZE = 32
MODEL = "a" * 64
LIMITS = Limits(alone=0.1, compared=0.2, rate=0.01, faces=300, model=MODEL)


def smooth(count: int, seed: int = 0) -> np.ndarray:
    """Pictures without detail, (count, 32, 32, 3)."""
    small = np.random.default_rng(seed).integers(40, 216, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack([cv2.resize(one, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for one in small])


def detailed(faces: np.ndarray, amplitude: int = 30) -> np.ndarray:
    """With a checkerboard on top, which nothing but the pixels as they are keeps."""
    board = (np.indices((SIZE, SIZE)).sum(0) % 2 * 2 - 1)[None, :, :, None] * amplitude
    return (faces.astype(int) + board).clip(0, 255).astype(np.uint8)


def embed(faces: np.ndarray) -> np.ndarray:
    """Coarse brightness, and how strong the checkerboard is."""
    board = (np.indices((SIZE, SIZE)).sum(0) % 2 * 2 - 1)[None]
    grey = faces.astype(np.float32).mean(3)
    coarse = grey.reshape(len(faces), 4, SIZE // 4, 4, SIZE // 4).mean((2, 4)).reshape(len(faces), 16) - 128
    raw = np.concatenate([coarse, 20 * (grey * board).mean((1, 2))[:, None]], axis=1)
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def test_agreement_scores_zero_and_the_score_is_its_formula() -> None:
    z = np.array([[1, 0, 0], [1, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(disagreement(z, z, z), 0)
    # Views on average at 0.8 of z, and drawn half way to a template that z is at a right angle to.
    v, r = np.array([[0.8, 0.5, 0], [0.8, 0, 0]], dtype=np.float32), np.array([[0, 1, 0]] * 2, dtype=np.float32)
    np.testing.assert_allclose(disagreement(z, v, None), [0.2, 0.2], rtol=0, atol=rounding(3))
    np.testing.assert_allclose(disagreement(z, v, r), [0.7, 0.2], rtol=0, atol=rounding(3))
    # Away from the template counts like towards it.
    np.testing.assert_allclose(disagreement(z, v, -r), disagreement(z, v, r), rtol=0, atol=rounding(3))


def test_detail_that_views_lose_scores_higher_than_the_picture_without() -> None:
    guard, faces = Guard(), smooth(20)
    reference = embed(faces)
    clean = guard.scores(embed, faces, reference, rng=np.random.default_rng(0))
    changed = guard.scores(embed, detailed(faces), reference, rng=np.random.default_rng(0))
    assert clean.shape == (20,)
    assert clean.max() < changed.min()


def test_the_score_averages_over_views_that_each_face_has_for_itself() -> None:
    guard, faces = Guard(views=Views(count=3)), detailed(smooth(4))
    rng = np.random.default_rng(7)
    seen = [embed(np.stack([guard.views.draw(rng)(face) for face in faces])) for _ in range(3)]
    expected = disagreement(embed(faces), np.mean(seen, axis=0), None)
    np.testing.assert_allclose(
        guard.scores(embed, faces, rng=np.random.default_rng(7)), expected, rtol=0, atol=rounding(17)
    )
    alike = guard.scores(embed, np.repeat(faces[:1], 8, axis=0), rng=np.random.default_rng(7))
    assert len(np.unique(alike)) == 8, "or one view would be shared"


def test_views_come_from_the_generator_or_from_fresh_entropy() -> None:
    guard, faces = Guard(limits=LIMITS), detailed(smooth(3))
    look = guard.look(embed, faces, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(look.score, guard.look(embed, faces, rng=np.random.default_rng(1)).score)
    assert (guard.look(embed, faces).score != guard.look(embed, faces).score).any()


def test_views_stay_within_what_was_asked_for() -> None:
    views, rng = Views(shift=1.0, scale=(0.5, 0.6), quality=(30, 32)), np.random.default_rng(0)
    drawn = [views.draw(rng) for _ in range(200)]
    assert max(max(abs(one.across), abs(one.down)) for one in drawn) <= 1
    assert min(one.scale for one in drawn) >= 0.5
    assert max(one.scale for one in drawn) <= 0.6
    assert {one.quality for one in drawn} == {30, 31, 32}


def test_a_view_that_changes_nothing_is_the_jpeg_alone_and_a_moved_one_is_moved() -> None:
    (face,) = smooth(1)
    still = View(across=0.0, down=0.0, scale=1.0, quality=90)
    np.testing.assert_array_equal(still(face), through_jpeg(face, 90))
    assert np.abs(through_jpeg(face, 95).astype(int) - face).mean() < 3, "colours are in order"
    moved = View(across=2.0, down=0.0, scale=1.0, quality=95)(face)
    assert np.abs(moved[:, 2:].astype(int) - face[:, :-2]).mean() < 3
    assert np.abs(moved[:, 2:].astype(int) - face[:, 2:]).mean() > 3


def test_the_limit_of_a_rate_flags_no_more_of_the_clean_faces_than_that() -> None:
    faces = smooth(120)
    guard = calibrate(Guard(), embed, faces, embed(faces), model=MODEL, rate=0.05, rng=np.random.default_rng(0))
    assert guard.limits is not None
    assert (guard.limits.rate, guard.limits.faces, guard.limits.model) == (0.05, 120, MODEL)
    for references in (None, embed(faces)):
        look = guard.look(embed, faces, references, rng=np.random.default_rng(0))
        assert look.flagged.sum() == 6
        np.testing.assert_array_equal(look.flagged, look.score >= np.sort(look.score)[-6])
    assert guard.look(embed, detailed(faces), embed(faces), rng=np.random.default_rng(3)).flagged.all()


def test_each_face_is_embedded_once_beside_its_views(faces) -> None:
    seen = 0

    def service(pixels: np.ndarray) -> np.ndarray:
        nonlocal seen
        seen += len(pixels)
        return embed(pixels)

    convention = Convention(size=(SIZE, SIZE), pixel_range="0..255")
    opened = OpenedRecognizer(
        network=BlackBox(service, convention, name="service"),
        name="service",
        fingerprint=MODEL,
        content=MODEL,
        convention=convention,
        embedding_size=17,
    )
    guard = calibrated_guard(opened, contract_of(opened, mirror=False), faces, rate=0.05)
    assert guard.limits is not None
    assert seen == (1 + guard.views.count) * guard.limits.faces
    seen, (face,) = 0, smooth(1)
    plain, references = embed(face[None]), embed(smooth(1, seed=1))
    again = guard.look(service, face[None], references, plain=plain, rng=np.random.default_rng(0))
    assert seen == guard.views.count
    whole = guard.look(service, face[None], references, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(again.score, whole.score)


def test_no_faces_give_no_scores() -> None:
    look = Guard(limits=LIMITS).look(embed, smooth(0 + 1)[:0])
    assert look.score.shape == look.flagged.shape == (0,)


def test_a_guard_is_stored_and_read_for_its_own_model_alone(tmp_path) -> None:
    guard = Guard(views=Views(count=6, scale=(0.5, 0.7)), limits=LIMITS)
    write_guard(tmp_path / "guard.json", guard)
    assert read_guard(tmp_path / "guard.json", model=MODEL) == guard
    with pytest.raises(SteadfaceError, match=r"another model \(aaaaaaaaaaaa, this is bbbbbbbbbbbb\)"):
        read_guard(tmp_path / "guard.json", model="b" * 64)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 100_000, json.dumps({"views": {"count": 1, "depth": 3}, "limits": None})]
)
def test_files_that_are_no_guard_are_refused(tmp_path, text) -> None:
    (tmp_path / "guard.json").write_text(text)
    with pytest.raises(SteadfaceError, match="calibrate one anew"):
        read_guard(tmp_path / "guard.json", model=MODEL)


GUARD_EDITS = [
    *((part, value) for part in ("views", "limits") for value in (None, [], 1, "x", {"model": 1})),
    *(
        ("limits", key, value)
        for key in ("alone", "compared")
        for value in (math.nan, math.inf, None, "0.1", True, 9.0)
    ),
    *(("limits", "rate", value) for value in (0, 1.0, -0.1, "0.01", None)),
    *(("limits", "faces", value) for value in (0, 1e9, "300", 10**30)),
    ("limits", "model", None),
    *(("views", "count", value) for value in (0, -1, 10**9, 1e9, "4", True, None)),
    *(("views", "shift", value) for value in (math.nan, math.inf, -1.0, 1e9, "1.5")),
    *(("views", "scale", value) for value in ([0.45], [math.nan, 0.8], [0.8, 0.45], [0.0, 0.5], "ab", [1e-9, 2.0])),
    *(("views", "quality", value) for value in ([40.5, 75], [0, 75], [40, 10**9], ["40", "75"])),
]


@pytest.mark.parametrize("edit", GUARD_EDITS, ids=str)
@pytest.mark.parametrize("kept", [True, False], ids=["seal kept", "seal taken off"])
def test_an_edited_guard_is_refused(tmp_path, edit, kept) -> None:
    file = tmp_path / "guard.json"
    write_guard(file, Guard(limits=LIMITS))
    data = json.loads(file.read_text())
    *place, last, value = edit
    inner = data
    for step in place:
        inner = inner[step]
    inner[last] = value
    if not kept:
        del data["seal"]
    file.write_text(json.dumps(data))
    with pytest.raises(SteadfaceError, match="calibrate one anew"):
        read_guard(file, model=MODEL)


def test_a_guard_whose_limits_were_raised_is_refused_and_one_of_an_earlier_version_opens(tmp_path, caplog) -> None:
    file = tmp_path / "guard.json"
    write_guard(file, Guard(limits=LIMITS))
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "limits": {**data["limits"], "compared": 3.9}}))
    with pytest.raises(SteadfaceError, match="changed after it was written"):
        read_guard(file, model=MODEL)
    del data["seal"]
    file.write_text(json.dumps(data))
    assert read_guard(file, model=MODEL) == Guard(limits=LIMITS)
    assert "its seal was taken off" in caplog.text


def test_what_cannot_be_is_refused() -> None:
    faces = smooth(20)
    with pytest.raises(SteadfaceError, match="no limits yet"):
        Guard().look(embed, faces)
    with pytest.raises(SteadfaceError, match=r"0\.01 needs 300 clean faces, and there are 20"):
        calibrate(Guard(), embed, faces, embed(faces), model=MODEL, rng=np.random.default_rng(0))
    with pytest.raises(SteadfaceError, match="not a rate between 0 and 1"):
        calibrate(Guard(), embed, faces, embed(faces), model=MODEL, rate=1.0, rng=np.random.default_rng(0))
    for wrong in ({"count": 0}, {"shift": -1.0}, {"scale": (0.8, 0.4)}, {"scale": (0.5, 1.5)}, {"quality": (0, 50)}):
        with pytest.raises(SteadfaceError, match="views"):
            Views(**wrong)
