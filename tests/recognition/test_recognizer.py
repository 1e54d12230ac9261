"""From photographs to answers: thresholds that mean something, nothing half done, and every doubt said."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from math import expm1, log1p

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from steadface.backbones import save_backbone
from steadface.data.faces import UnreadableImage
from steadface.data.synthetic import synthetic_faces
from steadface.errors import SteadfaceError
from steadface.gallery.enrollment import NotAlike
from steadface.gallery.gallery import Gallery
from steadface.recognition.face_finder import NoFace, Seeing
from steadface.recognition.recognizer import Recognizer
from steadface.recognizers.contract import read_contract, store_contract
from steadface.workflows.calibrate import calibrate

from .planted import Planted


@pytest.fixture(scope="session")
def large():
    """Faces of 112 x 112 of six people, three of each."""
    return synthetic_faces(people=6, images_per_person=3, size=(112, 112), seed=3, first_person=100)


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory, network, faces):
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_backbone(path, network, {})
    calibrate(path, faces)
    return path


@pytest.fixture
def planted():
    return Planted()


@pytest.fixture(scope="session")
def opened(calibrated):
    """What no test changes."""
    return Recognizer.open(calibrated)


@pytest.fixture
def recognizer(opened, planted):
    seeing = Seeing.with_detector(planted, opened.contract.convention.size)
    return Recognizer(contract=opened.contract, embedder=opened.embedder, seeing=seeing)


@pytest.fixture
def with_gallery(recognizer, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("STEADFACE_GALLERY_KEY", raising=False)
    monkeypatch.delenv("STEADFACE_GALLERY_KEY_FILE", raising=False)
    with Gallery.create(tmp_path / "g.db", model=recognizer.contract.identity) as gallery:
        recognizer.gallery = gallery
        yield recognizer


def png(path, pixels):
    cv2.imwrite(str(path), pixels[..., ::-1])
    return path


def test_similarity_is_the_cosine_of_the_faces_wherever_they_stand(recognizer, planted, large):
    one, other = large.read(0), large.read(1)
    answer = recognizer.verify(planted.photograph(one), planted.photograph(other, scales=(3,)), fmr=1e-1)
    expected = recognizer.embed([one, other], aligned=True)
    assert answer.similarity == pytest.approx(float(expected[0] @ expected[1]), abs=0.03)
    assert answer.faces[0].face.box == (20, 30, 132, 142)
    assert answer.faces[1].face.box == (20, 30, 356, 366)


def test_the_threshold_is_that_of_the_rate_asked_for(recognizer, calibrated, large):
    thresholds = read_contract(calibrated).thresholds
    one, other = large.read(0), large.read(1)
    for fmr in (1e-1, 1e-2):
        answer = recognizer.verify(one, other, fmr=fmr, aligned=True)
        assert (answer.threshold, answer.fmr) == (thresholds.at(fmr), fmr)
        assert answer.match == (answer.similarity >= answer.threshold)
    given = recognizer.verify(one, one, threshold=0.999, aligned=True)
    assert (given.threshold, given.fmr, given.match) == (0.999, None, True)


def test_a_file_its_bytes_and_its_pixels_are_one_picture(recognizer, planted, large, tmp_path):
    pixels = planted.photograph(large.read(4))
    path = png(tmp_path / "a.png", pixels)
    answers = [recognizer.embed([picture]) for picture in (pixels, path, str(path), path.read_bytes())]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-6)


def test_one_picture_is_a_list_of_one_in_whatever_form(with_gallery, planted, large, tmp_path):
    pixels = planted.photograph(large.read(4))
    path = png(tmp_path / "a.png", pixels)
    expected = with_gallery.embed([pixels])
    tensor = torch.from_numpy(pixels)
    single = (str(path), path, path.read_bytes(), bytearray(path.read_bytes()), PIL.Image.open(path), pixels, tensor)
    paths = np.array([str(path)])  # as a table's column
    for picture in (*single, [path], (path,), iter([path]), tmp_path.glob("*.png"), pixels[None], tensor[None], paths):
        np.testing.assert_allclose(with_gallery.embed(picture), expected, atol=1e-6)
    with path.open("rb") as file:
        np.testing.assert_allclose(with_gallery.embed(file), expected, atol=1e-6)
    np.testing.assert_allclose(with_gallery.template("Ada", str(path)), expected[0], atol=1e-6)
    assert len(with_gallery.enroll("Ada", str(path)).faces) == 1
    faces = np.stack([large.read(index) for index in range(3)])
    np.testing.assert_allclose(
        with_gallery.embed(faces, aligned=True), with_gallery.embed(list(faces), aligned=True), atol=1e-6
    )


@pytest.mark.parametrize(
    "nothing",
    [[], (), np.empty((0, 112, 112, 3), np.uint8), iter([])],
    ids=["list", "tuple", "array", "iterator"],
)
def test_no_pictures_are_an_error_with_a_remedy(with_gallery, nothing):
    for ask in (with_gallery.embed, lambda given: with_gallery.template("Ada", given)):
        with pytest.raises(SteadfaceError, match=r"there are no pictures.*give one or more"):
            ask(nothing)
    with pytest.raises(SteadfaceError, match="there are no faces to embed"):
        with_gallery.embed_faces([])


@pytest.mark.parametrize("wrong", [None, 7, {"a.jpg": 1}])
def test_what_is_neither_a_picture_nor_a_list_is_refused(with_gallery, wrong):
    with pytest.raises(SteadfaceError, match=r"the pictures of Ada are a .*; give a list of them"):
        with_gallery.enroll("Ada", wrong)
    with pytest.raises(SteadfaceError, match="is no picture; give a path"):
        with_gallery.verify(wrong, wrong, threshold=0.5)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"backend": "onnxrt"}, "backend 'onnxrt' is not known; choose auto, torch or onnxruntime"),
        ({"precision": "fp16"}, r"precision 'fp16' is not known; choose fp32 or bf16"),
        ({"device": "gpu"}, "device 'gpu' cannot be used .*choose cpu, cuda or auto"),
        ({"mirror": "no"}, "mirror is 'no'.*give True or False"),
        ({"compile": "no"}, "compile is 'no'.*give True or False"),
        ({"detector": 7}, "the detector is 7; give a YuNet or SCRFD file"),
        ({"detector": "nowhere.onnx"}, "there is no detector file nowhere.onnx"),
        ({"gallery": "people.db"}, r"the gallery is 'people.db'; open it first, gallery=Gallery.open"),
        ({"guard": "nowhere.json"}, "nowhere.json is not a guard that can be read"),
    ],
    ids=str,
)
def test_a_misspelt_option_is_named_with_what_there_is(calibrated, option, words):
    with pytest.raises(SteadfaceError, match=words):
        Recognizer.open(str(calibrated), **option)


@pytest.mark.parametrize("rate", [0, 1, 2, -1e-3, float("nan"), float("inf"), "1e-3"])
def test_a_rate_that_is_none_is_refused_before_any_work(with_gallery, rate):
    for asked in ({"fmr": rate}, {"fpir": rate}):
        with pytest.raises(SteadfaceError, match=r"FMR|FPIR"):
            with_gallery.identify("nowhere.jpg", **asked)
    with pytest.raises(SteadfaceError, match="FMR"):
        with_gallery.verify("nowhere.jpg", "nowhere.jpg", fmr=rate)


@pytest.mark.parametrize("top", [0, -1, 1.5, "3", None])
def test_a_number_of_candidates_that_is_none_is_refused_before_any_work(with_gallery, top):
    with pytest.raises(SteadfaceError, match=r"top is .*give a whole number of 1 or more"):
        with_gallery.identify("nowhere.jpg", top=top)


@pytest.mark.parametrize("side", [1, 2, 8, 15])
def test_an_aligned_face_of_a_few_pixels_is_refused(recognizer, side):
    with pytest.raises(NoFace, match=f"{side} x {side} pixels is too small for an aligned face; give one of 16 x 16"):
        recognizer.embed(np.zeros((side, side, 3), np.uint8), aligned=True)


@pytest.mark.parametrize("shape", [(112, 80), (80, 112), (1, 112), (96, 112), (640, 480)])
def test_an_aligned_face_of_another_shape_is_refused(recognizer, shape):
    with pytest.raises(NoFace, match=f"of {shape[1]} x {shape[0]} pixels is not an aligned face"):
        recognizer.embed(np.zeros((*shape, 3), np.uint8), aligned=True)


def test_an_aligned_face_that_was_enlarged_is_said(network, large, tmp_path):
    wide = network.architecture.model_copy(update={"image_size": (112, 112)}).build(torch.Generator().manual_seed(0))
    save_backbone(tmp_path / "wide.safetensors", wide, {})
    recognizer = Recognizer.open(tmp_path / "wide.safetensors")
    small = cv2.resize(large.read(0), (40, 40))
    notes = recognizer.verify(small, large.read(1), threshold=0.5, aligned=True).notes
    assert notes == ("a picture of 40 x 40: so small that it was enlarged more than twice",)


def test_what_a_picture_shows_beside_the_face_is_said(recognizer, planted, large):
    crowded = planted.photograph(large.read(0), large.read(3), scales=(2, 1))
    answer = recognizer.verify(crowded, planted.photograph(large.read(1)), fmr=0.1)
    assert any("the largest of 2 faces was taken" in note for note in answer.notes)
    assert answer.to_json()["faces"][0]["other_faces"] == 1


class Lying:
    """Says of every face that it lies on its side, and is not sure of that."""

    def __init__(self, planted):
        self.planted = planted

    def detect(self, image):
        def lies(face):
            x, y = (face.landmarks - 60).T
            return replace(face, landmarks=np.stack([60 - y, 60 + x], 1).astype(np.float32), unsure=True)

        return [lies(face) for face in self.planted.detect(image)]


def test_every_answer_says_what_was_turned_and_what_is_not_certain(with_gallery, planted, large):
    picture = planted.photograph(large.read(0))
    with_gallery.seeing.detector = Lying(planted)
    lies, doubt = "lies on its side (90 degrees) and was turned", "it is not certain which way up the face is"
    for notes in (
        with_gallery.enroll("Ada", [picture]).notes,
        with_gallery.verify(picture, picture, fmr=1e-1).notes,
        with_gallery.identify(picture, fmr=1e-1).notes,
    ):
        assert lies in " ".join(notes)
        assert doubt in " ".join(notes)
    (seen,) = with_gallery.identify(picture, fmr=1e-1).to_json()["faces"]
    assert (seen["turned"], seen["unsure"]) == (90, True)


def test_a_picture_without_a_face_is_no_mismatch(recognizer, planted, large):
    with pytest.raises(NoFace, match=r"no face was found in a picture of 50 x 40"):
        recognizer.verify(np.zeros((40, 50, 3), dtype=np.uint8), planted.photograph(large.read(0)), fmr=0.1)


def test_a_photograph_passed_for_an_aligned_face_is_refused(recognizer, planted, large):
    with pytest.raises(SteadfaceError, match=r"of 152 x 172 pixels is not an aligned face"):
        recognizer.embed([planted.photograph(large.read(0))], aligned=True)


def test_an_uncalibrated_model_gives_no_rate_but_takes_a_threshold(model, large):
    recognizer = Recognizer.open(model, detector=Planted())
    with pytest.raises(SteadfaceError, match=r"not calibrated without mirror.*steadface calibrate"):
        recognizer.verify(large.read(0), large.read(1), fmr=1e-2, aligned=True)
    assert recognizer.verify(large.read(0), large.read(0), threshold=0.9, aligned=True).match


def test_thresholds_of_plain_images_are_not_used_for_mirrored_ones(calibrated, large):
    recognizer = Recognizer.open(calibrated, detector=Planted(), mirror=True)
    with pytest.raises(SteadfaceError, match="not calibrated with mirror"):
        recognizer.verify(large.read(0), large.read(1), aligned=True)


def test_a_contract_of_other_weights_is_refused(calibrated, tmp_path, network):
    path = tmp_path / "other.safetensors"
    changed = network.architecture.build()
    save_backbone(path, changed, {})
    store_contract(path, read_contract(calibrated))
    with pytest.raises(SteadfaceError, match="made for other weights"):
        Recognizer.open(path)


def test_people_enrolled_are_found_and_strangers_are_not(with_gallery, planted, large):
    for person in range(4):
        with_gallery.enroll(
            f"person {person}", [planted.photograph(large.read(3 * person + k)) for k in (0, 1)], check=False
        )
    picture = planted.photograph(large.read(3 * 2 + 2), scales=(2,))
    answer = with_gallery.identify(picture, threshold=-1.0)
    (face,) = answer.faces
    assert len(face.candidates) == 4
    assert [one.similarity for one in face.candidates] == sorted(
        (one.similarity for one in face.candidates), reverse=True
    )
    vectors = with_gallery.embed([picture])
    template = with_gallery.template("x", [planted.photograph(large.read(3 * 2 + k)) for k in (0, 1)], check=False)
    own = next(one for one in face.candidates if one.person == "person 2")
    assert own.similarity == pytest.approx(float(vectors[0] @ template), abs=1e-5)
    nobody = with_gallery.identify(picture, threshold=1.0)
    assert (nobody.match, nobody.faces[0].person) == (False, None)
    assert nobody.to_json()["faces"][0]["person"] is None


def test_every_face_of_a_photograph_is_looked_up(with_gallery, planted, large):
    with_gallery.enroll("Ada", [large.read(0)], aligned=True)
    answer = with_gallery.identify(planted.photograph(large.read(0), large.read(6), scales=(1, 2)), threshold=0.97)
    assert len(answer.faces) == 2
    assert answer.faces[0].seen.face.size > answer.faces[1].seen.face.size
    assert answer.faces[1].person == "Ada"
    assert answer.match
    assert answer.to_json()["width"] == 20 + 112 + 20 + 224 + 20


def test_an_fpir_asked_for_takes_a_stricter_threshold_the_more_people_there_are(with_gallery, calibrated, large):
    for person in range(3):
        with_gallery.enroll(f"person {person}", [large.read(3 * person)], aligned=True)
    answer = with_gallery.identify(large.read(0), fpir=0.1, aligned=True)
    fmr = -expm1(log1p(-0.1) / 3)
    assert answer.fmr == pytest.approx(fmr)
    assert answer.fpir == pytest.approx(0.1)
    assert answer.threshold == pytest.approx(read_contract(calibrated).thresholds.at(fmr))
    assert answer.threshold > with_gallery.identify(large.read(0), fmr=0.1, aligned=True).threshold
    with pytest.raises(SteadfaceError, match="give one of"):
        with_gallery.identify(large.read(0), fpir=0.1, fmr=0.1, aligned=True)
    with pytest.raises(SteadfaceError, match="FPIR 2"):
        with_gallery.identify(large.read(0), fpir=2, aligned=True)


def test_one_bad_picture_and_nobody_is_enrolled(with_gallery, planted, large, tmp_path):
    good = png(tmp_path / "good.png", planted.photograph(large.read(0)))
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:500])
    for bad, error in ((broken, UnreadableImage), (tmp_path / "missing.jpg", UnreadableImage)):
        with pytest.raises(error, match=bad.name):
            with_gallery.enroll("Ada", [good, bad])
    with pytest.raises(NoFace):
        with_gallery.enroll("Ada", [good, np.zeros((9, 9, 3), dtype=np.uint8)])
    with pytest.raises(SteadfaceError, match="shows 2 faces and two of them are about as large"):
        with_gallery.enroll("Ada", [good, planted.photograph(large.read(0), large.read(3))])
    with pytest.raises(SteadfaceError, match="no pictures of Ada"):
        with_gallery.enroll("Ada", [])
    assert len(with_gallery.gallery) == 0


def test_a_picture_of_somebody_else_is_named_before_anything_is_enrolled(with_gallery, large):
    limit = with_gallery.contract.thresholds.at(1e-2)
    vectors = with_gallery.embed([large.read(index) for index in range(18)], aligned=True)
    same = vectors @ vectors.T
    pair = np.argwhere(np.triu(same > limit, 1))[0]
    odd = int(np.argmin(same[pair].max(0)))
    assert same[pair, odd].max() < limit
    pictures = [large.read(int(index)) for index in (*pair, odd)]
    with pytest.raises(SteadfaceError, match=r"Ada was not enrolled: .* does not look like the other pictures"):
        with_gallery.enroll("Ada", pictures, aligned=True)
    assert len(with_gallery.gallery) == 0
    answer = with_gallery.enroll("Ada", pictures, aligned=True, check=False)
    assert answer.agreement < 0.9
    assert len(with_gallery.gallery) == 1


def test_somebody_enrolled_twice_is_noticed(with_gallery, large):
    with_gallery.enroll("Ada", [large.read(0)], aligned=True)
    again = with_gallery.enroll("Ada Lovelace", [large.read(0)], aligned=True)
    assert [one.person for one in again.resembles] == ["Ada"]
    assert again.resembles[0].similarity == pytest.approx(1, abs=1e-5)
    more = with_gallery.enroll("Ada", [large.read(0)], aligned=True)
    assert [one.person for one in more.resembles] == ["Ada Lovelace"]


def test_consent_and_expiry_reach_the_gallery(with_gallery, large):
    expires = datetime.now(UTC) + timedelta(days=1)
    with_gallery.enroll("Ada", [large.read(0)], aligned=True, consent="form 7", expires=expires)
    person = with_gallery.gallery.person("Ada")
    assert person.consent == "form 7"
    assert abs(person.expires - expires) < timedelta(seconds=1)


def test_an_expiry_is_a_day_or_a_moment_in_any_form(with_gallery, large):
    day = datetime.now(UTC).date() + timedelta(days=7)
    end = datetime.combine(day, time.max, UTC)
    noon = datetime.combine(day, time(12), UTC)
    for place, (given, meant) in enumerate(
        [(day, end), (day.isoformat(), end), (noon, noon), (noon.isoformat(), noon), (f"{day}T12:00Z", noon)]
    ):
        with_gallery.enroll(f"Ada {place}", [large.read(0)], aligned=True, expires=given)
        assert abs(with_gallery.gallery.person(f"Ada {place}").expires - meant) < timedelta(seconds=1)


@pytest.mark.parametrize(
    "wrong",
    ["soon", "2031-13-01", "2031-12-31T12:00", datetime(2031, 12, 31), 7, date(2001, 1, 1), "x" * 5000],
    ids=lambda value: str(value)[:20],
)
def test_an_expiry_that_is_none_is_refused(with_gallery, large, wrong):
    with pytest.raises(SteadfaceError, match="expiry") as raised:
        with_gallery.enroll("Ada", [large.read(0)], aligned=True, expires=wrong)
    assert len(str(raised.value)) < 300
    assert len(with_gallery.gallery) == 0


def test_a_gallery_of_another_model_is_refused(with_gallery):
    other = replace(with_gallery.contract, space="0" * 64, name="theirs")
    stranger = Recognizer(contract=other, embedder=with_gallery.embedder, seeing=with_gallery.seeing)
    with pytest.raises(SteadfaceError, match=r"small .* theirs"):
        stranger.gallery = with_gallery.gallery


def test_few_people_behind_a_threshold_are_said(recognizer, large):
    note = "rests on 24 people"
    assert note in " ".join(recognizer.verify(large.read(0), large.read(1), fmr=1e-3, aligned=True).notes)
    assert note not in " ".join(recognizer.verify(large.read(0), large.read(1), fmr=1e-1, aligned=True).notes)


@pytest.fixture
def strangers(with_gallery, large):
    """Two faces that this recogniser tells apart at FMR 1e-3."""
    vectors = with_gallery.embed([large.read(index) for index in range(18)], aligned=True)
    cosines = vectors @ vectors.T
    one, other = np.unravel_index(cosines.argmin(), cosines.shape)
    assert cosines[one, other] < with_gallery.alike
    return large.read(int(one)), large.read(int(other))


def test_somebody_else_under_an_enrolled_name_is_refused_and_nothing_is_added(with_gallery, strangers):
    one, other = strangers
    with_gallery.enroll("dan", [one], aligned=True)
    with_gallery.enroll("eve", [other], aligned=True)
    entries = with_gallery.gallery.verify_log().entries
    said = (
        r"dan is enrolled already and looks different: .*looks like eve, who is enrolled as well \(similarity 1.000\)"
    )
    with pytest.raises(NotAlike, match=said):
        with_gallery.enroll("dan", [other], aligned=True)
    assert with_gallery.gallery.verify_log().entries == entries
    forced = with_gallery.enroll("dan", [other], aligned=True, check=False)
    assert (forced.added, forced.templates, forced.template) == (True, 2, 3)
    assert forced.similarity < with_gallery.alike
    assert any("added to dan unchecked: it looks different" in note for note in forced.notes)
    assert with_gallery.identify(other, threshold=0.99, aligned=True).match
    with_gallery.gallery.remove_template("dan", forced.template)
    again = with_gallery.enroll("dan", [np.minimum(one, 254) + np.uint8(1)], aligned=True)
    assert (again.added, again.templates) == (True, 2)
    assert again.to_json()["templates"] == 2
    assert with_gallery.alike <= again.similarity <= 1


def test_two_people_in_equal_parts_are_no_one_person(with_gallery, strangers):
    """Each picture has another that looks like it, so each looks a little like the mean of the others."""
    one, other = strangers
    pictures = [one, one, other, other]
    with pytest.raises(
        SteadfaceError, match=r"dan was not enrolled: (.*\(.*\)){2} does not look like the other pictur"
    ):
        with_gallery.enroll("dan", pictures, aligned=True)
    assert len(with_gallery.gallery) == 0


def test_without_thresholds_nobody_is_judged_and_that_is_said(model, large, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    recognizer = Recognizer.open(model, detector=Planted())
    with Gallery.create(tmp_path / "g.db", model=recognizer.contract.identity) as gallery:
        recognizer.gallery = gallery
        assert recognizer.enroll("dan", [large.read(0)], aligned=True).notes == ()
        (note,) = recognizer.enroll("dan", [large.read(9)], aligned=True).notes
        assert "small is not calibrated, so nothing says whether this is dan as enrolled (cosine " in note
        (note,) = recognizer.enroll("eve", [large.read(0), large.read(9)], aligned=True).notes
        assert "small is not calibrated, so nothing says whether the pictures are all of one person" in note


def test_a_name_that_is_easily_taken_for_another_is_noted(with_gallery, large):
    with_gallery.enroll("dan", [large.read(0)], aligned=True)
    answer = with_gallery.enroll("d\u0430n", [large.read(9)], aligned=True)
    assert any("the name d\u0430n is easily taken for dan" in note and r"'d\u0430n'" in note for note in answer.notes)
    assert not any("easily taken" in note for note in with_gallery.enroll("eve", [large.read(3)], aligned=True).notes)


def test_one_name_however_it_is_composed_is_no_other_person(with_gallery, large):
    with_gallery.enroll("Zo\u00eb", [large.read(0)], aligned=True)
    again = with_gallery.enroll("Zoe\u0308", [large.read(0)], aligned=True)
    assert (again.person, again.resembles, again.templates) == ("Zo\u00eb", (), 2)


def test_people_whose_consent_expired_do_not_count(with_gallery, large, monkeypatch):
    now = datetime.now(UTC)
    for person in range(4):
        expires = now + timedelta(days=1) if person else None
        with_gallery.enroll(f"person {person}", [large.read(3 * person)], aligned=True, expires=expires)
    before = with_gallery.identify(large.read(0), fpir=0.1, aligned=True)
    monkeypatch.setattr(with_gallery.gallery, "_now", lambda: now + timedelta(days=2))
    after = with_gallery.identify(large.read(0), fpir=0.1, aligned=True)
    assert (before.enrolled, after.enrolled) == (4, 1)
    assert before.fmr == pytest.approx(-expm1(log1p(-0.1) / 4))
    assert after.fmr == pytest.approx(after.fpir) == pytest.approx(0.1)
    assert after.threshold < before.threshold
    with_gallery.gallery.remove("person 0")
    nobody = with_gallery.identify(large.read(0), fmr=0.1, aligned=True)
    assert (nobody.enrolled, nobody.fpir, nobody.match) == (0, 0.0, False)
    assert "there is nobody to be found" in " ".join(nobody.notes)


@pytest.mark.parametrize(
    "wrong", [float("nan"), float("inf"), -float("inf"), 40, -1.5, 1.01, "high", np.float32("nan")]
)
def test_what_is_no_cosine_is_no_threshold(with_gallery, wrong):
    """Before anything is read: the pictures are not there."""
    said = r"the threshold .* is not a similarity: these are cosines, from -1 to 1"
    with pytest.raises(SteadfaceError, match=said):
        with_gallery.verify("missing.jpg", "missing.jpg", threshold=wrong)
    with pytest.raises(SteadfaceError, match=said):
        with_gallery.identify("missing.jpg", threshold=wrong)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 0, 1, -0.1, 40, "low"])
def test_what_is_no_rate_is_no_rate(with_gallery, wrong):
    for rate in ("fmr", "fpir"):
        with pytest.raises(SteadfaceError, match=f"{rate.upper()} .* is not a rate between 0 and 1"):
            with_gallery.identify("missing.jpg", **{rate: wrong})
    with pytest.raises(SteadfaceError, match="is not a rate between 0 and 1"):
        with_gallery.verify("missing.jpg", "missing.jpg", fmr=wrong)


def test_both_ends_of_the_cosine_are_thresholds(recognizer, large):
    for threshold, match in ((-1, True), (1, False), (np.float32(-1), True)):
        answer = recognizer.verify(large.read(0), large.read(9), threshold=threshold, aligned=True)
        assert answer.match == match


def test_a_gallery_that_was_closed_or_replaced_answers_nothing(with_gallery, large, tmp_path):
    with_gallery.enroll("dan", [large.read(0)], aligned=True)
    gallery = with_gallery.gallery
    gallery.backup(tmp_path / "b.db")
    (tmp_path / "b.db").replace(gallery.name)
    said = "another file has taken the place of the gallery"
    with pytest.raises(SteadfaceError, match=said):
        with_gallery.identify(large.read(0), fmr=0.1, aligned=True)
    with pytest.raises(SteadfaceError, match=said):
        with_gallery.enroll("eve", ["missing.jpg"])
    gallery.close()
    with pytest.raises(SteadfaceError, match="was closed; open it again"):
        with_gallery.identify(large.read(0), fmr=0.1, aligned=True)
