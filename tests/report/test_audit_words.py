import pytest

from steadface.report.audit import comparison as comparing
from steadface.report.audit.comparison import audits_of, verdict, winners
from steadface.report.audit.summary import change, counted, meaning, odds_of, of_ten, opening

from .audits import audit, compared, comparison, record


def _plain(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


def _verdict(data):
    both = compared(data)
    return verdict(both, audits_of(both))


def _opening(data):
    both = compared(data)
    return comparing.opening(both, audits_of(both))


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (0.0, "none of the pairs"),
        (0.001, "fewer than 1 of 100 pairs (0.1 %)"),
        (0.03, "3 of 100 pairs"),
        (0.083, "8 of 100 pairs (8.3 %)"),
        (0.16, "16 of 100 pairs"),
        (0.68, "7 of 10 pairs (68.0 %)"),
        (0.95, "95 of 100 pairs"),
        (0.999, "nearly all pairs (99.9 %)"),
        (1.0, "all pairs"),
    ],
)
def test_rates_as_people_count(rate, told):
    assert _plain(counted(rate, "pairs")) == told


def test_a_rounded_count_is_never_far_from_the_rate():
    for rate in (n / 1000 for n in range(6, 995)):
        part, whole = map(int, of_ten(rate).split(" of "))
        assert abs(part / whole - rate) <= (0.0301 if whole == 10 else 0.0051)


def test_odds():
    assert odds_of(0.01) == "1 in 100"
    assert odds_of(1e-4) == "1 in 10,000"
    assert _plain(odds_of(0.0234)) == "2.3 % of"


def test_the_first_paragraph_has_the_figures_of_the_data():
    data = audit()
    for entry in data["worst_case"]:
        entry["error_rate"] = {"dodging": 0.68, "impersonation": 0.415}[entry["goal"]] + 20 * (entry["eps"] - 2 / 255)
    text = _plain(opening(record(data)))
    for said in (
        "“mobilefacenet” with 100 pairs of pictures of one person and 100 pairs of different people",
        "from a similarity of 0.231, the threshold at which it takes 1 in 100 pairs of different people for one",
        "misses 3 of 100 pairs of one person and accepts 1 of 100 pairs of different people",
        "changes no pixel by more than 2 of 255 grey levels, 0.8 % of the way from black to white, makes it refuse "
        "7 of 10 pairs",
        "(68.0 %) and accept 4 of 10 strangers as the person whom the attacker chose (41.5 %)",
        "With up to 4 of 255, 1.6 % of the way from black to white, that becomes 84 of 100 pairs (83.7 %) refused",
        "it does not resist",
    ):
        assert said in text
    assert "quick" not in text


def test_what_is_concluded_follows_the_smallest_radius():
    assert "does not resist" in meaning(record(audit(levels=1.0)))
    assert "resists in part" in meaning(record(audit(levels=4.5)))
    withstands = audit(levels=30.0)
    withstands["worst_case"][1]["error_rate"] = 0.8
    assert "but not the largest" in meaning(record(withstands))
    assert "no proof" in meaning(record(audit(levels=30.0)))


def test_quick_runs_failed_checks_and_useless_models_support_less():
    assert "supports no claim" in opening(record(audit(preset="quick")))
    doubted = audit()
    doubted["checks"][1]["passed"] = False
    assert "white-box beats black-box (Square)" in meaning(record(doubted))
    assert "may resist less" in meaning(record(doubted))
    doubted["checks"][0]["passed"] = False
    assert "2 checks of the attacks themselves do not hold" in meaning(record(doubted))
    useless = audit()
    useless["clean"]["fnmr"] = 0.7
    assert "say little" in meaning(record(useless))


def test_an_l2_budget_is_told_per_pixel():
    data = audit()
    data["settings"]["norm"] = "l2"
    mean = 255 * 2.0 / (3 * 112 * 112) ** 0.5
    assert f"{mean:.2g} of 255 grey levels in the root mean square (l2 2)" in change(record(data), 2.0)


def test_the_better_model_is_named_whichever_comes_first():
    weak, strong = audit(levels=1.4), audit(levels=9.0)
    for pair, better, worse in (((weak, strong), "hardened", "clean"), ((strong, weak), "clean", "hardened")):
        data = comparison(*pair)
        assert f"“{better}” resists attack better than “{worse}”" in _verdict(data)


def test_equal_models_are_not_told_apart_and_contradictions_are_said():
    data = comparison(audit(), audit())
    for test in data["distance_tests"]:
        test["p"] = 0.8
    assert "do not tell" in _verdict(data)
    assert set(winners(compared(data))) == {None}
    data["tests"][0] |= {"difference": 0.3, "p": 1e-6}
    data["tests"][3] |= {"difference": -0.3, "p": 1e-6}
    assert "Neither is better throughout" in _verdict(data)


def test_many_tests_share_one_level():
    data = comparison(audit(), audit(levels=9.0))
    for test in [*data["tests"], *data["distance_tests"]]:
        test["p"] = 0.02  # below 5 %, but one of six
    assert "do not tell" in _verdict(data)


def test_a_median_that_was_not_reached_is_further_than_any():
    data = comparison(audit(), audit(levels=60.0))
    assert data["distance_tests"][0]["medians"][1] is None
    assert winners(compared(data))[-2:] == [1, 1]
    text = _opening(data)
    assert "finds a change for “clean”, and none within reach for “hardened”" in text


def test_the_comparison_has_the_figures_of_its_tests():
    data = comparison(audit(), audit(levels=9.0, preset="quick"))
    data["audits"][1]["checks"][0]["passed"] = False
    text = _plain(_opening(data))
    first, second = (100 * rate for rate in data["tests"][0]["rates"])
    assert f"({first:.1f} against {second:.1f} %, p < 0.001)" in text
    assert f"a change {data['distance_tests'][0]['ratio']:.1f} times as large for “hardened” as for “clean”" in text
    assert "The attacks on “hardened” cannot be fully believed" in text
    assert "supports no claim" in text
