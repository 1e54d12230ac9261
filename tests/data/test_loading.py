import itertools
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import util

import numpy as np
import pytest
import torch

from steadface.data.augment import Augmentation
from steadface.data.faces import ArrayFaces, Subset, UnreadableImage
from steadface.data.folders import ImageFolder
from steadface.data.loading import FaceLoader, load_images
from steadface.data.sampling import BalancedSampler, UniformSampler
from steadface.errors import SteadfaceError

# torch warns about more workers than cores and newer Pythons about forking beside threads; neither is at test here.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def loader(source, *, batch_size=6, workers=0, seed=0, **options):
    sampler = BalancedSampler(source.labels, batch_size=batch_size, seed=seed)
    options = {"size": (32, 32), "augmentation": Augmentation()} | options
    return FaceLoader(source, sampler=sampler, workers=workers, seed=seed, **options)


def take(faces_loader, start, count):
    batches = faces_loader.batches(start)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def assert_equal(first, second):
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert (a.unreadable, a.messages) == (b.unreadable, b.messages)


@pytest.fixture
def damaged(face_folders):
    """ada keeps two of three images, bo none of two, cy all; reds 0..2, 3..4, 5..7."""
    root = face_folders({"ada": 3, "bo": 2, "cy": 3})
    for name in ("ada/00.png", "bo/00.png", "bo/01.png"):
        (root / name).write_bytes(b"junk")
    return ImageFolder(root)


def test_a_batch_holds_the_drawn_images_scaled_to_one(face_folders):
    source = ImageFolder(face_folders({"ada": 3, "bo": 2}))
    faces_loader = loader(source, size=(112, 96), augmentation=None)
    (batch,) = take(faces_loader, 4, 1)
    indices = faces_loader.sampler.draw(4)
    assert batch.images.shape == (6, 3, 112, 96)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous()
    assert batch.labels.dtype == torch.int64
    assert batch.unreadable == 0
    np.testing.assert_array_equal(batch.labels, source.labels[indices])
    expected = torch.from_numpy(np.stack([source.read(i)[0, 0] for i in indices])).float() / 255
    assert torch.equal(batch.images, expected[:, :, None, None].expand(-1, -1, 112, 96))


def test_the_number_of_workers_makes_no_difference(damaged):
    alone = take(loader(damaged, workers=0), 0, 7)
    assert sum(batch.unreadable for batch in alone) > 0
    assert_equal(alone, take(loader(damaged, workers=1), 0, 7))
    assert_equal(alone, take(loader(damaged, workers=2, prefetch=3), 0, 7))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_sees_the_same_batches(damaged, workers):
    whole = take(loader(damaged, workers=workers), 0, 8)
    assert_equal(whole[5:], take(loader(damaged, workers=workers), 5, 3))


def test_seed_and_step_vary_the_augmentation():
    pixels = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3), dtype=np.uint8)
    source = ArrayFaces(pixels, [0, 1], ["a", "b"])
    batches = take(loader(source, batch_size=2), 0, 3) + take(loader(source, batch_size=2, seed=1), 0, 3)
    assert len({image.numpy().tobytes() for batch in batches for image in batch.images}) >= 10


def test_unreadable_images_are_replaced_by_the_same_person_where_possible(damaged):
    faces_loader = loader(damaged, augmentation=None)
    for step, batch in enumerate(take(faces_loader, 0, 12)):
        drawn = faces_loader.sampler.draw(step)
        reds = (batch.images[:, 0, 0, 0] * 255).round().long().numpy()
        readable = {0: (1, 2), 2: (5, 6, 7)}
        assert all(red in readable[label] for red, label in zip(reds, batch.labels.tolist(), strict=True))
        kept = np.isin(drawn, [1, 2, 5, 6, 7])
        np.testing.assert_array_equal(reds[kept], drawn[kept])
        assert batch.unreadable == (~kept).sum() == len(batch.messages)
        np.testing.assert_array_equal(batch.labels[drawn == 0], 0)
        assert all("cannot be decoded" in message for message in batch.messages)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_wholly_unreadable_set_is_a_message_not_a_crash(face_folders, workers):
    root = face_folders({"ada": 2, "bo": 2})
    for path in root.rglob("*.png"):
        path.write_bytes(b"junk")
    with pytest.raises(SteadfaceError, match="check the data set") as caught:
        take(loader(ImageFolder(root), workers=workers), 0, 1)
    assert "Traceback" not in str(caught.value)


def test_one_person_is_not_enough(face_folders):
    source = ImageFolder(face_folders({"ada": 3}))
    with pytest.raises(SteadfaceError, match=r"training needs 2 people, and there are 1.*ada"):
        loader(source)


@pytest.mark.parametrize("options", [{"workers": -1}, {"seed": -2}])
def test_negative_options_are_named(options):
    source = ArrayFaces(np.zeros((2, 4, 4, 3), np.uint8), [0, 1], ["a", "b"])
    sampler = UniformSampler(source.labels, batch_size=2, seed=0)
    with pytest.raises(SteadfaceError, match=r"-1|-2"):
        FaceLoader(source, sampler=sampler, **options)


def test_workers_end_with_the_iterator(damaged):
    before = set(multiprocessing.active_children())
    batches = loader(damaged, workers=2).batches()
    next(batches)
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    batches.close()
    for worker in workers:
        worker.join()
        # The loader tells them to end, and terminates one that needs more than five seconds for it.
        assert worker.exitcode in (0, -signal.SIGTERM)


def test_ctrl_c_does_not_reach_the_workers(damaged):
    batches = loader(damaged, workers=2).batches()
    first = list(itertools.islice(batches, 2))  # one of each worker: both have begun
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGINT)
    rest = list(itertools.islice(batches, 7))
    batches.close()
    assert_equal([*first, *rest], take(loader(damaged), 0, 9))


@pytest.fixture
def ctrl_c(monkeypatch):
    """Ctrl-C in the first moment of each worker, to it and to this process, which answers as it is told to.

    A worker that hears it is gone.
    """
    this, fork, before = os.getpid(), os.fork, signal.getsignal(signal.SIGINT)

    def fork_and_press():
        child = fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(this, signal.SIGINT)
        return child

    def answered_by(answer):
        signal.signal(signal.SIGINT, lambda *_: answer() if os.getpid() == this else os._exit(1))

    monkeypatch.setattr(os, "fork", fork_and_press)
    yield answered_by
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_a_workers_first_moment_is_for_the_parent_alone(damaged, ctrl_c):
    heard, mask = [], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ctrl_c(lambda: heard.append(1))
    alone = take(loader(damaged), 0, 3)
    for times in range(12):
        assert_equal(alone, take(loader(damaged, workers=2), 0, 3))
        assert len(heard) > times, "the parent hears it each time"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask


def test_ctrl_c_reaches_the_main_thread_when_another_one_starts_the_workers(damaged, ctrl_c):
    heard = []
    ctrl_c(lambda: heard.append(threading.current_thread()))
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(take, loader(damaged, workers=2), 0, 3).result()
    assert set(heard) == {threading.main_thread()}
    assert_equal(found, take(loader(damaged), 0, 3))


def test_workers_that_are_not_forked_are_deaf_from_the_start_too(damaged, monkeypatch):
    """The signal meets an interpreter that has not read its first line."""
    heard, spawn = [], util.spawnv_passfds

    def spawn_and_press(path, words, descriptors):
        child = spawn(path, words, descriptors)
        if "--multiprocessing-fork" in words:
            os.kill(child, signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return child

    monkeypatch.setattr(util, "spawnv_passfds", spawn_and_press)
    method, before = multiprocessing.get_start_method(), signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    multiprocessing.set_start_method("spawn", force=True)
    try:
        found = take(loader(damaged, workers=1), 0, 3)
    finally:
        multiprocessing.set_start_method(method, force=True)
        signal.signal(signal.SIGINT, before)
    assert heard
    assert_equal(found, take(loader(damaged), 0, 3))


def test_without_signal_masks_batches_come_all_the_same(damaged, monkeypatch):
    monkeypatch.delattr(signal, "pthread_sigmask")
    assert_equal(take(loader(damaged, workers=1), 0, 3), take(loader(damaged), 0, 3))


def test_global_random_state_is_left_alone(damaged):
    before = torch.random.get_rng_state()
    take(loader(damaged, workers=1), 0, 2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_load_images_reads_as_asked(face_folders):
    source = ImageFolder(face_folders({"ada": 3, "bo": 2}))
    images = load_images(Subset(source, [4, 0]), [1, 0], (56, 56))
    assert images.shape == (2, 3, 56, 56)
    np.testing.assert_allclose(images[:, 0].amax(dim=(1, 2)).numpy() * 255, [0, 4], atol=1e-4)
    assert load_images(source, []).shape == (0, 3, 112, 112)


def test_load_images_says_what_it_cannot_read(damaged):
    with pytest.raises(UnreadableImage, match=r"ada/00\.png"):
        load_images(damaged, [1, 0])
