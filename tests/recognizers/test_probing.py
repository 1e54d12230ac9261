from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from steadface.errors import SteadfaceError
from steadface.recognizers import (
    Convention,
    OpenedRecognizer,
    diagnose,
    probe_convention,
    probed,
    starting_from,
)
from steadface.recognizers.adapters import Adapted, BlackBox, under
from steadface.recognizers.convention import Known
from steadface.recognizers.probing import _chosen, _faces_for, auc, separation

from .recognisers import Reader, faces_in_red

IMAGES, PEOPLE = faces_in_red()
RIGHT = Convention(size=(16, 16), pixel_range="-1..1", channel_order="rgb")
DEFAULT = Known(size="default", pixel_range="default", channel_order="default")


class Swapped(nn.Module):
    """Reads who it is in the third channel: made for BGR."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = Reader()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = self.reader(pixels.flip(1))
        return embeddings


def factory(core: nn.Module):
    return partial(under, Adapted(core, RIGHT, name="reader"))


def opened(core: nn.Module, convention: Convention) -> OpenedRecognizer:
    network = Adapted(core, convention, name="reader").eval()
    return OpenedRecognizer(network=network, name="reader", fingerprint="0", content="1", convention=convention)


def test_auc_is_the_share_of_pairs_in_order_and_d_prime_its_definition() -> None:
    rng = np.random.default_rng(0)
    cosines, same = rng.normal(size=60).round(1), rng.random(60) < 0.4
    g, h = cosines[same][:, None], cosines[~same][None]
    assert auc(cosines, same) == pytest.approx(((g > h) + 0.5 * (g == h)).mean())
    spread = np.sqrt((g.var() + h.var()) / 2)
    assert separation(cosines, same) == pytest.approx((g.mean() - h.mean()) / spread)
    assert separation(np.ones(60), same) == 0


@pytest.mark.parametrize(("core", "order"), [(Reader(), "rgb"), (Swapped(), "bgr")])
@pytest.mark.parametrize("start", ["-1..1", "0..255", "0..1"])
def test_the_convention_that_a_recogniser_was_made_for_is_found(core: nn.Module, order: str, start: str) -> None:
    assumed = Convention(size=(16, 16), pixel_range=start)
    found = probe_convention(factory(core), IMAGES, PEOPLE, start=assumed)
    assert (found.best.convention.pixel_range, found.best.convention.channel_order) == ("-1..1", order)
    assert found.best.auc is not None
    assert found.best.auc > 0.95
    assert found.trials[0].convention == assumed
    assert all(trial.rank <= (found.best.auc + 0.01, np.inf) for trial in found.trials)


def test_what_was_assumed_stays_where_nothing_is_clearly_better() -> None:
    assumed = Convention(size=(16, 16), pixel_range="(x-127.5)/128")
    assert probe_convention(factory(Reader()), IMAGES, PEOPLE, start=assumed).best.convention == assumed


def test_a_size_at_which_a_module_fails_is_no_error_but_one_at_which_all_fails_is() -> None:
    large = torch.nn.functional.interpolate(IMAGES, size=(32, 32))
    assumed = Convention(size=(32, 32))
    found = probe_convention(factory(Reader()), large, PEOPLE, start=assumed, sizes=((16, 16), (24, 24)))
    assert found.best.convention.size == (16, 16)
    assert "does not run" in str(found)
    with pytest.raises(SteadfaceError, match="state the image_size"):
        probe_convention(factory(Reader()), large, PEOPLE, start=assumed, sizes=((24, 24),))


def test_only_what_nobody_stated_is_probed() -> None:
    stated = Convention(size=(16, 16), known=Known(size="stated", pixel_range="stated", channel_order="default"))
    kept = probed(opened(Swapped(), stated), IMAGES, PEOPLE)
    assert kept.convention == Convention(size=(16, 16), channel_order="bgr")
    assert kept.convention.known == Known(size="stated", pixel_range="stated", channel_order="probed")
    assert any("probed on 24 faces" in note and "bgr: AUC" in note for note in kept.notes)
    assert torch.equal(kept.network(IMAGES), Adapted(Swapped(), kept.convention, name="")(IMAGES))
    assert kept.fingerprint != opened(Swapped(), stated).fingerprint


def test_nothing_is_probed_where_all_is_known_and_all_is_well() -> None:
    known = opened(Reader(), RIGHT)
    same = probed(known, IMAGES, PEOPLE)
    assert same == known


@pytest.mark.parametrize(
    ("core", "stated", "remedy"),
    [
        (Reader(), Convention(size=(16, 16), pixel_range="0..255"), "the pixel range is the likely cause: state "),
        (Swapped(), Convention(size=(16, 16)), "the colour order is the likely cause: state channel_order bgr"),
        (Swapped(), Convention(size=(16, 16), pixel_range="0..255"), "pixel range and colour order are the likely"),
    ],
)
def test_a_wrong_statement_is_named(core: nn.Module, stated: Convention, remedy: str) -> None:
    diagnosis = str(diagnose(factory(core), stated, IMAGES, PEOPLE))
    assert remedy in diagnosis
    assert probed(opened(core, stated), IMAGES, PEOPLE).notes[-1].endswith(diagnosis)


def test_a_wrong_size_is_named() -> None:
    class Downscaled(nn.Module):
        """Made for 160 x 160: of smaller pictures it sees nothing of use."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            small = nn.functional.adaptive_avg_pool2d(pixels, (16, 16))
            return Reader()(small if pixels.shape[2] == 160 else torch.rand_like(small))

    torch.manual_seed(0)
    diagnosis = str(diagnose(factory(Downscaled()), Convention(size=(32, 32)), IMAGES, PEOPLE))
    assert "the size is the likely cause: state image_size 160x160" in diagnosis


def test_where_no_convention_helps_that_is_said() -> None:
    strangers = np.random.default_rng(0).permutation(PEOPLE)
    assert "no other size, pixel range or colour order" in str(diagnose(factory(Reader()), RIGHT, IMAGES, strangers))


def test_a_function_is_asked_for_both_orders_and_for_one_range() -> None:
    asked: list[int] = []

    def service(faces: np.ndarray) -> np.ndarray:
        asked.append(len(faces))
        pixels = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 127.5 - 1
        return Swapped()(pixels).detach().numpy()

    convention = Convention(size=(16, 16), pixel_range="0..255", known=Known(size="stated", channel_order="default"))
    network = BlackBox(service, convention, name="service")
    box = OpenedRecognizer(network=network, name="service", fingerprint="0", convention=convention)
    assert probed(box, IMAGES, PEOPLE).convention.channel_order == "bgr"
    assert sum(asked) == 2 * len(PEOPLE)


def test_hopeless_conventions_are_looked_at_once_and_what_remains_on_all_faces() -> None:
    images, people = faces_in_red(people=24, each=4)
    looked: list[tuple[str, int]] = []
    told: list[tuple[int, int]] = []

    class Counting(nn.Module):
        def __init__(self, convention: Convention) -> None:
            super().__init__()
            self.network, self.convention = factory(Swapped())(convention), convention

        def forward(self, faces: torch.Tensor) -> torch.Tensor:
            looked.append((str(self.convention), len(faces)))
            embeddings: torch.Tensor = self.network(faces)
            return embeddings

    start = Convention(size=(16, 16), pixel_range="0..255")
    found = probe_convention(
        Counting, images, people, start=start, sizes=(), progress=lambda done, total: told.append((done, total))
    )
    assert found.best.convention == Convention(size=(16, 16), channel_order="bgr")
    faces = {name: sum(count for other, count in looked if other == name) for name, _ in looked}
    assert len(faces) == 8
    assert faces.pop(str(found.best.convention)) == 24 + 96
    assert min(faces.values()) == 24
    assert sum(faces.values()) < 7 * 96 / 2
    assert all(trial.hopeless for trial in found.trials if "rgb" in str(trial.convention))
    assert told[0] == (1, 8)
    assert told[-1][0] == told[-1][1] == len(told) > 8


def test_large_images_are_fewer() -> None:
    assert [_faces_for(Convention(size=(side, side))) for side in (32, 112, 160, 224, 448)] == [96, 96, 48, 48, 48]


def test_a_person_of_one_image_is_left_out_of_a_look_unless_there_is_nobody_else() -> None:
    people = np.array([5, 5, 1, 7, 7, 7, 2])
    assert _chosen(people, 5).tolist() == [0, 1, 3, 4, 5]
    assert _chosen(people, 4, each=2).tolist() == [0, 1, 3, 4]
    assert _chosen(np.array([5, 5, 1, 7]), 2).tolist() == [0, 1, 2, 3]


def test_an_earlier_convention_is_where_probing_starts_and_what_is_stated_stays() -> None:
    known = Known(size="stated", pixel_range="stated", channel_order="default")
    stated = Convention(size=(16, 16), known=known)
    begun = starting_from(opened(Swapped(), stated), Convention(size=(16, 16), pixel_range="0..1", channel_order="bgr"))
    assert begun.convention == Convention(size=(16, 16), channel_order="bgr")
    assert begun.convention.known == known
    assert torch.equal(begun.network(IMAGES), Adapted(Swapped(), begun.convention, name="")(IMAGES))


@pytest.mark.parametrize("people", [np.arange(24), np.zeros(24, dtype=np.int64), np.arange(5)])
def test_faces_that_say_nothing_are_refused(people: np.ndarray) -> None:
    with pytest.raises(SteadfaceError, match="people"):
        probe_convention(factory(Reader()), IMAGES, people)
