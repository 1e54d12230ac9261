"""A service to try: its people are known, strangers are not taken for them, and it is made once."""

from pathlib import Path

import pytest

from steadface.recognition.recognizer import Recognizer
from steadface.service.collections import DEFAULT, opened
from steadface.service.demonstration import NAMES, demonstration, needs_training
from steadface.service.observation import Metrics

TINY = (
    *("data.synthetic.people=20", "data.synthetic.images_per_person=3", "data.size=[16,16]", "data.batch=4"),
    *("model.architecture.width=0.125", "model.architecture.blocks=[1,0,0,0]", "model.architecture.embedding_size=8"),
    *("evaluation.fmr=0.1", "evaluation.steps=1", "evaluation.restarts=1", "evaluation.max_pairs=2"),
    *("run.steps=2", "run.threads=1", "run.device=cpu", "run.tensorboard=false", "method.gate.kind=never"),
)


def test_it_is_made_once_and_knows_its_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert needs_training(tmp_path)
    place = demonstration(tmp_path, overrides=TINY)
    assert place is not None
    assert not needs_training(tmp_path)
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert len(pictures) == 2 * (len(NAMES) + 2)
    monkeypatch.setattr(Recognizer, "template", lambda *_, **__: pytest.fail("they are there"))
    assert demonstration(tmp_path, overrides=TINY) == place
    with opened({DEFAULT: place}, Metrics()) as found:
        collection = found.get(None)
        assert [person.name for person in collection.gallery.people()] == list(NAMES)
        (face,) = collection.recognizer.identify(tmp_path / "pictures" / pictures[0], fmr=0.1).faces
        assert face.seen.face is not None, "a whole picture is a face"
