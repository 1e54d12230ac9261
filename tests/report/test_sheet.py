import base64

import cv2
import numpy as np
import pytest

from steadface.report.sheet import difference, png_uri, sheet


def _decode(uri):
    data = np.frombuffer(base64.b64decode(uri.removeprefix("data:image/png;base64,")), dtype=np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def test_a_picture_survives_as_png():
    picture = np.random.default_rng(0).integers(0, 256, size=(7, 5, 3)) / 255
    np.testing.assert_array_equal(_decode(png_uri(picture)), np.rint(255 * picture))


def test_large_pictures_shrink_in_proportion():
    assert _decode(png_uri(np.full((320, 160, 3), 0.5))).shape == (160, 80, 3)


def test_no_change_is_grey_and_changes_are_magnified_tenfold():
    source = np.full((4, 4, 3), 0.5)
    np.testing.assert_allclose(difference(source, source), 0.5)
    np.testing.assert_allclose(difference(source, source + 0.02), 0.7)
    np.testing.assert_allclose(difference(source, source - 0.2), 0.0)


def test_examples_say_what_happened(make_arm, make_example):
    text = sheet([make_arm(examples=[make_example("dodging"), make_example("impersonation")])])
    assert text.count("<img") == 8
    assert "cosine 0.70 → \N{MINUS SIGN}0.10" in text
    assert "match → no match at threshold 0.31" in text
    assert text.count("same person") == 2  # alternative text and label
    assert text.count("target person") == 2
    assert sheet([make_arm(examples=[])]) == ""


@pytest.mark.parametrize(("arms", "shown"), [(1, 12), (3, 12), (5, 10)])
def test_the_page_keeps_a_bounded_number_of_examples(make_arm, make_example, arms, shown):
    examples = [make_example()] * 20
    assert sheet([make_arm(str(n), examples=examples) for n in range(arms)]).count("<figure") == shown
