"""What people pass is checked: what is allowed comes back, everything else is named beside it."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from steadface.arguments import as_path, choice, count, flag, rate
from steadface.errors import MESSAGE, SteadfaceError, short

Kind = Literal["auto", "torch"]


def test_what_is_allowed_comes_back() -> None:
    assert as_path("a/b", "x") == as_path(Path("a/b"), "x") == Path("a/b")
    assert choice("backend", "torch", Kind) == "torch"
    assert (rate("FMR", 1e-3), rate("FMR", np.float32(0.5))) == (1e-3, 0.5)
    assert (count("top", 3), count("top", np.int64(1)), count("seed", 0, least=0)) == (3, 1, 0)
    assert flag("mirror", True) is True
    assert flag("mirror", np.bool_(False)) is False


@pytest.mark.parametrize("wrong", [None, 7, b"a", ["a"], "", "a\0b"])
def test_what_is_no_path_is_named(wrong: object) -> None:
    with pytest.raises(SteadfaceError, match=r"the gallery .*(give a path|name a file)"):
        as_path(wrong, "the gallery")


@pytest.mark.parametrize("wrong", ["Torch", "troch", "", None, 1, ["torch"], np.array(["torch", "auto"])])
def test_a_misspelt_choice_is_named_with_those_there_are(wrong: object) -> None:
    with pytest.raises(SteadfaceError, match=r"backend .* is not known; choose auto or torch"):
        choice("backend", wrong, Kind)


def test_what_was_meant_is_said() -> None:
    with pytest.raises(SteadfaceError, match=r"did you mean torch\?"):
        choice("backend", "tourch", Kind)


@pytest.mark.parametrize("wrong", [1e-320, 0, 1, 2, -0.5, float("nan"), float("inf"), "1e-3", None, True])
def test_a_rate_lies_between_0_and_1(wrong: object) -> None:
    with pytest.raises(SteadfaceError, match=r"FMR .* is not a rate between 0 and 1; ask for"):
        rate("FMR", wrong)


@pytest.mark.parametrize("wrong", [0, -1, 1.0, "1", None, True, float("nan")])
def test_a_count_is_a_whole_number(wrong: object) -> None:
    with pytest.raises(SteadfaceError, match=r"top is .*give a whole number of 1 or more"):
        count("top", wrong)


@pytest.mark.parametrize("wrong", ["no", 0, None])
def test_a_switch_is_true_or_false(wrong: object) -> None:
    with pytest.raises(SteadfaceError, match=r"mirror is .*give True or False"):
        flag("mirror", wrong)


def test_no_message_repeats_a_long_text_or_a_picture() -> None:
    picture = "data:image/png;base64," + 50_000 * "A"
    assert len(str(SteadfaceError(f"{picture} is no picture"))) < 200
    assert "50,022 characters" in str(SteadfaceError(picture))
    assert len(str(SteadfaceError(10_000 * "one word "))) < MESSAGE + 100
    assert str(SteadfaceError("short as it is")) == "short as it is"
    assert short(bytes(10_000)) == "10,000 bytes"
    assert short(np.zeros((400, 300, 3), np.uint8)) == "uint8 of shape (400, 300, 3)"
    assert len(short([0] * 10_000)) < 120
