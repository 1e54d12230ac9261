"""Who comes and goes: planted faces with planted embeddings, frame by frame."""

from dataclasses import replace

import numpy as np
import pytest

from steadface.errors import InvalidInput
from steadface.faces.quality import Quality
from steadface.recognition.events import Decision
from steadface.recognition.visits import Rules, Sighting, Visits, overlaps, weight

ADA, BOB, EVE = np.eye(8, dtype=np.float32)[:3]
NAMES = {"ada": ADA, "bob": BOB}
STEP = 0.1
"""Seconds between frames."""


def near(person, rng, noise=0.15):
    """An embedding of somebody in one frame: cosine of about 0.9 to them."""
    vector = person + rng.normal(0, noise, person.shape)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def at(x, vector, *, y=10.0, side=40.0, weight=1.0):
    reasons = () if weight else ("the face is blurred",)
    return Sighting(box=(x, y, x + side, y + side), vector=vector, weight=weight, reasons=reasons)


class Gallery:
    """Ada and Bob are enrolled; asked about everybody who is due."""

    def __init__(self):
        self.asked = []

    def __call__(self, templates):
        self.asked.append(len(templates))
        return [self.decision(template) for template in templates]

    def decision(self, template):
        name, similarity = max(((name, float(template @ own)) for name, own in NAMES.items()), key=lambda one: one[1])
        return Decision(person=name if similarity >= 0.5 else None, similarity=similarity, threshold=0.5)


RULES = Rules(alike=0.5, frames=5, patience=1.0, gap=0.5)


def played(frames, rules=RULES, gallery=None):
    """All events of frames that are `STEP` apart, and of the end."""
    visits = Visits(gallery or Gallery(), rules)
    events = [event for number, frame in enumerate(frames) for event in visits.frame(number * STEP, frame)]
    return events + visits.close(len(frames) * STEP)


def told(events):
    return [(event.kind, event.visit, event.decision.person) for event in events]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_somebody_is_seen_then_identified_once_there_are_frames_enough_then_leaves(rng):
    events = played([[at(10 + 3 * step, near(ADA, rng))] for step in range(9)])
    assert told(events) == [("seen", 1, None), ("identified", 1, "ada"), ("left", 1, "ada")]
    assert [(event.frames, event.good) for event in events] == [(2, 2), (5, 5), (9, 9)]
    assert [round(event.time, 3) for event in events] == [0.1, 0.4, 0.9]
    assert events[1].decision.similarity >= events[1].decision.threshold == 0.5
    assert events[-1].box == (34, 10, 74, 50)


def test_a_stranger_is_unknown_and_nobodys_name_is_told(rng):
    events = played([[at(10, near(EVE, rng))] for _ in range(8)])
    assert told(events) == [("seen", 1, None), ("unknown", 1, None), ("left", 1, None)]
    assert events[1].decision.similarity < 0.5
    assert "ada" not in str([event.to_json() for event in events])


def test_two_people_who_cross_keep_their_names(rng):
    frames = [[at(10 + 10 * step, near(ADA, rng)), at(210 - 10 * step, near(BOB, rng))] for step in range(20)]
    frames = [frame[:: 1 if step % 2 else -1] for step, frame in enumerate(frames)]  # in whatever order
    events = played(frames)
    assert {event.visit for event in events} == {1, 2}
    left = {event.decision.person: event for event in events if event.kind == "left"}
    assert left["ada"].box[0] == 200
    assert left["bob"].box[0] == 20
    assert all(event.frames == event.good == 20 for event in left.values())


def test_two_people_who_cross_too_blurred_to_be_compared_go_on_as_they_moved(rng):
    def frame(step):
        fit = 0.0 if 4 < step < 16 else 1.0
        return [
            at(10 + 10 * step, near(ADA, rng), weight=fit),
            at(210 - 10 * step, near(BOB, rng), y=14, weight=fit),
        ]

    events = played([frame(step) for step in range(20)])
    left = {event.decision.person: event for event in events if event.kind == "left"}
    assert {name: event.frames for name, event in left.items()} == {"ada": 20, "bob": 20}


def test_one_frame_that_says_somebody_else_changes_nothing(rng):
    """Blurred, it does not count; and where quality has not noticed, it belongs to no visit."""
    for fit in (0.0, 1.0):
        frames = [[at(10, near(ADA, rng))] for _ in range(12)]
        frames[6] = [at(10, near(BOB, rng), weight=fit)]
        events = played(frames)
        assert told(events) == [("seen", 1, None), ("identified", 1, "ada"), ("left", 1, "ada")]
        assert events[-1].good == 11


def test_a_gap_is_bridged_where_it_is_short_wherever_the_face_comes_back(rng):
    def frames(missing):
        there = [[at(10, near(ADA, rng))] for _ in range(6)]
        return [*there, *[[]] * missing, *([at(300, one[0].vector)] for one in there)]

    assert [event.kind for event in played(frames(3))] == ["seen", "identified", "left"]
    assert [(event.kind, event.visit) for event in played(frames(8))] == [
        *(("seen", 1), ("identified", 1), ("left", 1)),
        *(("seen", 2), ("identified", 2), ("left", 2)),
    ]


def test_who_takes_somebodys_place_is_another_visit(rng):
    events = played([[at(10, near(person, rng))] for person in (ADA, EVE, BOB) for _ in range(6)])
    assert [event.decision.person for event in events if event.kind == "left"] == ["ada", None, "bob"]


def test_who_takes_somebodys_place_is_another_visit_though_neither_can_be_compared(rng):
    """Nor is who can be compared taken for somebody who could not."""
    for fit in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0)):
        frames = [
            [at(10, near(who, rng, 0.05), weight=one)]
            for who, one in zip((ADA, BOB), fit, strict=True)
            for _ in range(6)
        ]
        left = [event for event in played(frames) if event.kind == "left"]
        assert [event.frames for event in left] == [6, 6]
        names = [name if one else None for name, one in zip(("ada", "bob"), fit, strict=True)]
        assert [event.decision.person for event in left] == names


def test_a_face_in_one_frame_alone_is_no_visit(rng):
    frames = [[at(10, near(ADA, rng))] for _ in range(6)]
    frames[3].append(at(200, near(BOB, rng)))
    assert {event.visit for event in played(frames)} == {1}


def test_whoever_cannot_be_compared_is_unknown_after_some_time_and_the_reason_is_told(rng):
    events = played([[at(10, near(ADA, rng), weight=0.0)] for _ in range(15)])
    assert told(events) == [("seen", 1, None), ("unknown", 1, None), ("left", 1, None)]
    assert events[1].time == pytest.approx(RULES.patience)
    assert (events[1].good, events[1].decision.similarity, events[1].reasons) == (0, None, ("the face is blurred",))


def test_a_decision_is_revised_where_better_frames_say_otherwise(rng):
    poor = (BOB + 1.1 * ADA) / np.linalg.norm(BOB + 1.1 * ADA)
    frames = [[at(10, poor, weight=0.1)] for _ in range(5)] + [[at(10, near(BOB, rng, 0.05))] for _ in range(10)]
    events = played(frames)
    assert told(events) == [
        *(("seen", 1, None), ("identified", 1, "ada")),
        *(("identified", 1, "bob"), ("left", 1, "bob")),
    ]
    assert [event.revised for event in events] == [False, False, True, False]
    assert events[2].good == 10


def test_who_stays_is_compared_each_time_that_the_frames_have_doubled(rng):
    gallery = Gallery()
    played([[at(10, near(EVE, rng))] for _ in range(100)], gallery=gallery)
    assert len(gallery.asked) == len([5, 10, 20, 40, 80]) + 1


def test_everybody_who_is_due_in_a_frame_is_asked_about_at_once(rng):
    gallery = Gallery()
    played([[at(100 * place, near(who, rng)) for place, who in enumerate((ADA, BOB, EVE))] for _ in range(5)],
           gallery=gallery)  # fmt: skip
    assert gallery.asked == [3, 3]


def test_a_visit_outlives_slow_frames_but_not_a_stream_that_is_lost(rng):
    visits = Visits(Gallery(), RULES)
    for number in range(4):  # a second and a half apart, three times the gap
        visits.frame(1.5 * number, [at(10, near(ADA, rng))])
    assert visits.count == 1
    assert len(visits.here) == 1
    assert not visits.pass_time(6.0)
    assert [event.kind for event in visits.pass_time(9.0)] == ["left"]
    assert not visits.close(9.0)


def test_a_visit_holds_no_more_for_a_thousand_frames_than_for_ten(rng):
    visits = Visits(Gallery(), RULES)
    for number in range(1000):
        visits.frame(number * STEP, [at(10, near(ADA, rng))])
    assert sum(np.size(value) for value in vars(visits.here[0]).values()) < 100


QUALITY = Quality(size=40, sharpness=0.3, yaw=0, pitch=0, roll=0, brightness=120, contrast=40, clipped=0, cut_off=0)


def test_a_better_face_counts_more_and_one_with_reasons_against_it_not_at_all():
    assert weight(QUALITY) == 1
    worse = [{"size": 25.0}, {"sharpness": 0.1}, {"yaw": -40.0}, {"pitch": 25.0}]
    assert all(0 < weight(replace(QUALITY, **change)) < 1 for change in worse)
    assert weight(replace(QUALITY, reasons=("the face is blurred",))) == 0


def test_overlaps_of_boxes():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10]], dtype=float)
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 0]]
    found = overlaps(boxes, np.array([*boxes, [20, 20, 30, 30]]))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"patience": 0.0}, {"gap": float("nan")}])
def test_rules_that_cannot_be(wrong):
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        Rules(alike=0.5, **wrong)
