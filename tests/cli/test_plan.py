"""`steadface plan` as a user calls it."""

import json
import re

import pytest

from .conftest import Call

TINY = ("plan", "--identities", "1e4", "--backbone", "iresnet18", "--width", 0.0625, "--size", "32x32")


def test_it_says_what_fits_what_would_and_how_fast(call: Call) -> None:
    crowded = (*TINY, "--batch", 5000, "--memory", "2G", "--gpus", 4, "--duty", 0.5)
    said = call(*crowded, "--images-per-second", 1000, "--bandwidth", 10)
    assert said.code == 1
    assert "does not fit" in said.out
    assert "images a second" in said.out
    batch = int(re.search(r"a batch of ([\d,]+)", said.out)[1].replace(",", ""))  # type: ignore[index]
    advised = call(*crowded, "--batch", batch, "--json")
    assert advised.code == 0
    found = json.loads(advised.out)
    assert found["fits"]
    assert found["workload"]["batch"] == batch


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--memory", "plenty"), "--memory"),
        (("--identities", "1.5"), "--identities"),
        (("--identities", "nan"), "--identities"),
        (("--backbone", "vgg"), "vgg"),
        (("--width", 1000), "64"),
        (("--images-per-second", -1), "--images-per-second"),
        (("--sample-rate", 2), "sample_rate"),
    ],
)
def test_what_cannot_be_meant_is_refused(call: Call, words: tuple[object, ...], named: str) -> None:
    said = call(*TINY, *words)
    assert said.code == 2
    assert named in said.err
