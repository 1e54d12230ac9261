import dataclasses

import pytest

from steadface.report.text import about, cautions, comparison, opening, verdict


def test_a_sound_arm_is_told_in_its_numbers(make_arm):
    text = about(make_arm()).replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith("60 steps in 0.5 minutes; the gate was open for 60 % of them. On clean faces 96.0 % of")
    assert "20.6 % of genuine pairs are missed at FMR 10⁻²" in text
    assert "dodging breaks 20.0 % of genuine pairs at 2/255 and 40.0 % at 4/255" in text
    assert "impersonation lets in 20.0 % of impostor pairs at 2/255 and 40.0 % at 4/255." in text
    assert "conclusion" not in text
    skipped = about(dataclasses.replace(make_arm(), skipped=2))
    assert skipped.startswith("60 steps, 2 of them skipped for a loss that was not finite")


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"accuracy": 0.55, "eer": 0.45}, "near chance"),
        ({"accuracy": None, "eer": 0.45}, "near chance"),
        ({"impostor_mean": 0.9, "genuine_mean": 0.95}, "collapsed"),
        ({"impostor_mean": 0.1, "genuine_mean": 0.15}, "collapsed"),
    ],
)
def test_a_useless_arm_supports_no_conclusion(make_arm, evaluation, said):
    arm = make_arm("bad", evaluation=evaluation)
    assert said in about(arm)
    assert "no conclusion follows" in about(arm)
    assert any("bad" in text and "no conclusion" in text for text in cautions([arm, make_arm("good")]))
    assert "Fewer than two" in comparison([arm, make_arm("good")])


def test_an_arm_that_rejects_everybody_has_little_left_to_dodge(make_arm):
    points = [{"fmr": 1e-2, "threshold": 0.3, "tar": 0.2, "tar_ci": [0.1, 0.3]}]
    assert "say little" in verdict(make_arm(evaluation={"operating_points": points}))


def test_unknown_figures_give_no_verdict(make_arm):
    nothing = dict.fromkeys(("accuracy", "eer", "genuine_mean", "impostor_mean", "operating_points", "attacks"))
    arm = make_arm(evaluation=nothing, history=None, steps=None, seconds=None, duty_cycle=None)
    assert about(arm) == "Not trained here. It was not evaluated on clean faces. It was not attacked."


def test_the_comparison_names_the_better_arm_and_minds_the_intervals(make_arm):
    strong, weak, near = (
        make_arm("strong", strength=0.05),
        make_arm("weak", strength=0.2),
        make_arm("near", strength=0.06),
    )
    apart = comparison([weak, strong])
    assert "dodging succeeds least often against “strong”" in apart
    assert "its interval lies below that of “weak”" in apart
    assert "overlaps with that of “near”" in comparison([weak, near, strong])
    assert comparison([strong]) == ""


def test_cautions(make_arm):
    short, long = make_arm("a", seconds=30.0), make_arm("b", seconds=60.0, evaluation={"warnings": ["masked?"]})
    assert cautions([short, make_arm("c", seconds=31.0)]) == []
    found = cautions([short, long])
    assert found[0].startswith("Training times differ, from 0.5 to 1.0")
    assert found[1] == "“b”: masked?"


def test_opening_counts(make_arm):
    assert "one trained recogniser, “gated”" in opening([make_arm()])
    assert "two trained recognisers, “a” and “b”" in opening([make_arm("a"), make_arm("b")])
