import json
import math
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest

from steadface.errors import SteadfaceError, visible
from steadface.files import plain
from steadface.report.page import write_report

VOID = {"meta", "img", "br", "link", "hr", "input"}
ABOUT = {"title": "Report", "versions": {"torch": "2"}, "seed": 7, "command": "steadface demo", "notes": "Made up."}


class Page(HTMLParser):
    """Collects what a browser would: text outside styles, tags, and every attribute; checks that tags balance."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += "" if "style" in self.open else data


def written(folder, arms, **changes):
    html, numbers = folder / "out" / "report.html", folder / "out" / "report.json"
    write_report(html, numbers, arms=arms, **(ABOUT | changes))
    return html.read_text(encoding="utf-8"), json.loads(numbers.read_text(encoding="utf-8"))


@pytest.fixture
def write(tmp_path):
    return partial(written, tmp_path)


@pytest.fixture(scope="module")
def two_arms(tmp_path_factory, make_arm):
    """The page of two arms, one of which was never attacked while it trained."""
    crossed = {"cross_operating_points": [{"fmr": 1e-5, "threshold": 0.6, "tar": 0.4, "tar_ci": [0.3, 0.5]}]}
    arms = [make_arm("clean", strength=0.3, duty_cycle=0.0), make_arm("gated", evaluation=crossed)]
    return written(tmp_path_factory.mktemp("page"), arms)[0]


def test_the_page_is_whole_and_loads_nothing(two_arms):
    text = two_arms
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    sources = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert len(sources) >= 4 + 8  # figures, and two examples of four pictures
    assert all(value.startswith("data:image/") for value in sources)
    assert "@media print" in text
    assert len(text) < 3_000_000


def test_the_page_says_what_a_reader_needs(two_arms):
    words = " ".join(Page(two_arms).text.split())
    for said in (
        "compares two trained recognisers",
        "the gate never opened",
        "ISO/IEC 30107-3",
        "PGD alone gives only an upper bound of robustness",
        "Made up.",
        "steadface demo",
        "kind: arcface",
        "torch",
        "Operating points on clean pairs",
        "Every attack",
        "Operating points on all cross pairs",
        "10⁻⁵",
    ):
        assert said in words


@pytest.mark.usefixtures("undrawn")
def test_the_numbers_keep_their_contract(write, make_arm):
    arms = [
        make_arm("clean", duty_cycle=0.0, seconds=np.float64(31.5)),
        make_arm("gated", evaluation={"eer": math.nan}),
    ]
    _, data = write(arms)
    assert data["seed"] == 7
    assert data["command"] == "steadface demo"
    assert [arm["name"] for arm in data["arms"]] == ["clean", "gated"]
    clean, gated = data["arms"]
    assert (clean["seconds"], clean["steps"], clean["duty_cycle"]) == (31.5, 60, 0.0)
    assert (clean["accuracy"], gated["eer"]) == (0.96, None)
    fields = {"accuracy", "accuracy_std", "eer", "genuine_mean", "impostor_mean", "operating_points", "attacks"}
    assert fields <= set(clean)
    assert {"fmr", "threshold", "tar", "tar_ci"} <= set(clean["operating_points"][0])
    attack = {"attack", "norm", "eps", "goal", "fmr", "threshold", "error_rate", "ci", "pairs"}
    assert attack <= set(clean["attacks"][0])
    assert isinstance(clean["roc"]["fmr"], list)


def test_hostile_names_stay_text(write, make_arm, make_example):
    evil = "<script>alert(1)</script>\"'&$x^2$\u202e\u200b\x1b[31m"
    evaluation = {"warnings": [evil], "attacks": [{"attack": evil, "norm": evil, "goal": evil, "eps": 1, "fmr": 0.1}]}
    arms = [
        make_arm(evil, recipe={evil: {evil: evil}}, evaluation=evaluation, examples=[make_example(evil)]),
        make_arm("_hidden"),
    ]
    text, data = write(arms, title=evil, versions={evil: evil}, command=evil, notes=[evil])
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert page.text.count(visible(evil)) > 8
    assert not set(text) & set("\u202e\u200b\x1b")
    assert data["title"] == evil


def test_missing_parts_leave_the_rest(write, make_arm):
    bare = make_arm("bare", recipe={}, history=None, evaluation={}, seconds=None, steps=None, duty_cycle=None)
    empty = type(bare)(name="empty", recipe={}, evaluation={})
    unattacked = make_arm("unattacked", evaluation={"attacks": [], "operating_points": None}, examples=[])
    text, data = write([bare, empty, unattacked])
    assert "all cross pairs" not in text
    assert "nan" not in Page(text).text.lower().split()
    assert data["arms"][1] == {"name": "empty", "seconds": None, "steps": None, "duty_cycle": None, "recipe": {}}
    text, _ = write([empty])
    assert "It was not attacked." in Page(text).text


@pytest.mark.usefixtures("undrawn")
def test_only_what_differs_in_the_recipes_is_compared(write, make_arm):
    arms = [make_arm(str(m), recipe={"head": {"m": m, "s": 32}, "name": str(m)}) for m in (0.3, 0.5)]
    text, _ = write(arms)
    table = text[text.index("Where the recipes differ") :]
    table = table[: table.index("</table>")]
    assert "head.m" in table
    assert "head.s" not in table


def test_no_arm_or_a_shared_name_is_refused(write, make_arm):
    with pytest.raises(SteadfaceError, match="at least one arm"):
        write([])
    with pytest.raises(SteadfaceError, match="share a name"):
        write([make_arm("a"), make_arm("a")])


@pytest.mark.usefixtures("undrawn")
def test_a_failed_write_leaves_both_files_as_they_were(tmp_path, make_arm):
    html, blocked = tmp_path / "report.html", tmp_path / "file" / "report.json"
    html.write_text("before")
    (tmp_path / "file").write_text("a file where a folder is needed")
    with pytest.raises(SteadfaceError, match="cannot be written"):
        write_report(html, blocked, arms=[make_arm()], **ABOUT)
    assert html.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "report.html"]


def test_plain_values():
    value = {1: (np.float32(0.5), math.inf), "a": np.array([1.0, math.nan]), "b": {"c": True, "d": None}}
    assert plain(value) == {"1": [0.5, None], "a": [1.0, None], "b": {"c": True, "d": None}}
