import json
from html.parser import HTMLParser

import pytest

from steadface.errors import SteadfaceError, visible
from steadface.report.audit import checks, corruptions, curves, distances
from steadface.report.audit import comparison as comparing
from steadface.report.audit.comparison import render_comparison, write_comparison
from steadface.report.audit.page import render_audit, write_audit
from steadface.report.audit.thresholds import thresholds_table

from .audits import audit, compared, comparison, record

VOID = {"meta", "img", "br"}
EVIL = "<script>alert(1)</script>\"'&$x^2$\u202e\u200b\x1b[31m"


class Page(HTMLParser):
    """Text outside styles, tags, pictures and their alternative texts; checks that tags balance."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.images, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.images += [dict(attrs)] if tag == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += "" if "style" in self.open else data


@pytest.fixture(scope="module")
def text(make_example):
    """A page with everything in it."""
    return render_audit(record(audit()), [make_example("dodging"), make_example("impersonation")])


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_page_loads_nothing_and_every_picture_has_words(text, page):
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "http://" not in text
    assert "https://" not in text
    assert len(page.images) == 4 + 8  # figures, and two examples of four pictures
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.images)
    assert "match → no match at threshold 0.23" in page.text
    assert len(text) < 3_000_000


def test_the_page_says_what_a_reader_needs(page):
    words = " ".join(page.text.split())
    for said in (
        "ISO/IEC 19795-1",
        "ISO/IEC 30107-3",
        "✓ holds",
        "not judged",
        "no attack 3, APGD",
        "At other thresholds",
        "A gallery of 1,000 people",
        "occlusion, severity 5",
        "for comparison only",
        "5f3a5f3a",
        "Square queries",
        "steadface audit mobilefacenet",
        "2.11.0",
    ):
        assert said in words


@pytest.mark.usefixtures("no_figures")
def test_each_threshold_has_its_own_figures():
    point = audit()["other_thresholds"][0]
    rows = Page(thresholds_table(record(audit()))).text.split("10⁻³")  # its row is the last
    assert len(rows) == 2
    assert "0.318" in rows[1]
    assert all(f"{100 * entry['error_rate']:.1f}" in rows[1] for entry in point["worst_case"])
    assert all(f"{100 * entry['error_rate']:.1f}" in rows[0] for entry in audit()["worst_case"])


@pytest.mark.usefixtures("no_figures")
def test_a_failed_check_is_marked():
    data = audit()
    data["checks"][1]["passed"] = False
    assert "✗ fails" in Page(render_audit(record(data))).text


def test_alternative_texts_carry_the_curves(page):
    data = audit()
    told = " ".join(image["alt"] for image in page.images).replace("\N{NO-BREAK SPACE}", " ")
    assert all(f"{100 * entry['error_rate']:.1f} % at" in told for entry in data["worst_case"])


@pytest.fixture
def no_figures(monkeypatch):
    """Pages without their figures, which take most of the time."""
    for module, name in (
        (curves, "security_figure"),
        (comparing, "security_figure"),
        (distances, "distance_figure"),
        (corruptions, "corruption_figure"),
        (checks, "surface_figure"),
    ):
        monkeypatch.setattr(module, name, lambda _: None)


OPTIONAL = {
    "title": "",
    "checks": [],
    "identification": None,
    "corruptions": [],
    "patches": [],
    "surfaces": [],
    "other_thresholds": [],
    "distances": {},
    "warnings": [],
    "versions": {},
    "command": "",
    "seconds": None,
}


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("part", OPTIONAL)
def test_no_optional_part_need_be_there(part):
    data = audit() | {part: OPTIONAL[part]}
    Page(render_audit(record(data)))
    Page(render_comparison(compared(comparison(data, audit()))))


@pytest.mark.usefixtures("no_figures")
def test_nothing_but_the_worst_case_need_be_known():
    data = audit() | OPTIONAL | {"attacks": [], "median_distance": {}}
    both = comparison(audit(), audit()) | {"audits": [data, data], "tests": [], "distance_tests": [], "warnings": []}
    assert "Read with care" not in Page(render_audit(record(data))).text
    assert "were not tested" in Page(render_comparison(compared(both))).text


def test_figures_need_no_more_either():
    data = record(audit() | OPTIONAL | {"attacks": []})
    assert curves.curves(data).startswith("<figure>")
    assert (distances.one_audit(data), corruptions.corruptions(data), checks.checks(data)) == ("", "", "")


def test_hostile_names_stay_text(make_example):
    data = audit(EVIL)
    data |= {"warnings": [EVIL], "command": EVIL, "versions": {EVIL: EVIL}}
    data["checks"][0] |= {"name": EVIL, "finding": EVIL, "passed": False}
    data["attacks"][0]["attack"] = EVIL
    data["corruptions"][0]["corruption"] = EVIL
    data["worst_case"][0]["by"] = {EVIL: 3}
    both = comparison(data, audit()) | {"names": [EVIL, "_hidden"]}
    for text in (render_audit(record(data), [make_example(EVIL)]), render_comparison(compared(both))):
        page = Page(text)
        assert "<script" not in text
        assert page.text.count(visible(EVIL)) > 6
        assert not set(text) & set("\u202e\u200b\x1b")


@pytest.mark.usefixtures("no_figures")
def test_numbers_come_back_as_they_were(tmp_path, make_example):
    data = audit()
    write_audit(tmp_path / "new" / "a.html", tmp_path / "new" / "a.json", record(data), [make_example()])
    assert json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8")) == data
    both = comparison(audit(), audit(levels=9.0))
    write_comparison(tmp_path / "c.html", tmp_path / "c.json", compared(both))
    assert json.loads((tmp_path / "c.json").read_text(encoding="utf-8")) == both


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("write", [write_audit, write_comparison])
def test_a_failed_write_leaves_both_files_as_they_were(tmp_path, write):
    data = record(audit()) if write is write_audit else compared(comparison(audit(), audit()))
    html, blocked = tmp_path / "report.html", tmp_path / "file" / "audit.json"
    html.write_text("before")
    (tmp_path / "file").write_text("a file where a folder is needed")
    with pytest.raises(SteadfaceError, match="cannot be written"):
        write(html, blocked, data)
    assert html.read_text() == "before"


def test_the_comparison_shows_tests_and_both_models():
    both = comparison(audit(), audit(levels=60.0))
    page = Page(render_comparison(compared(both)))
    words = " ".join(page.text.split())
    test = both["tests"][0]
    assert f"\N{MINUS SIGN}{-100 * test['difference']:.1f}" in words
    assert "p (McNemar)" in words
    assert "not reached" in words
    assert "Checks of the attacks on “clean”" in words
    assert "Checks of the attacks on “hardened”" in words
    assert "no surrogate was given" in words
    assert len(page.images) == 2


@pytest.mark.usefixtures("no_figures")
def test_patches_stand_in_a_table_of_their_own() -> None:
    data = audit() | {
        "patches": [
            {"patch": "forehead", "area": 0.06, "goal": goal, "error_rate": rate, "ci": [0.1, 0.9], "pairs": 100}
            for goal, rate in (("dodging", 0.43), ("impersonation", 0.27))
        ]
    }
    page = render_audit(record(data))
    assert "Patches that somebody could wear" in page
    for text in ("forehead", "43.0", "27.0", "6.0"):
        assert text in page
    assert "Patches that somebody could wear" not in render_audit(record(audit()))
