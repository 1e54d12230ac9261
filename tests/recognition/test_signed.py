"""A contract that is signed with a gallery's key: whoever writes files without the key cannot let strangers in."""

import json
import shutil

import pytest
from safetensors.torch import save_file

from steadface.errors import Conflict, InvalidInput, NotFound
from steadface.gallery.gallery import Gallery
from steadface.gallery.sealing.keys import new_key, write_key
from steadface.recognition.recognizer import Recognizer
from steadface.recognizers.contract import SIGNED, read_contract, store_contract
from steadface.recognizers.guard import read_guard, write_guard
from steadface.recognizers.seal import sealed
from steadface.workflows.calibrate import calibrate, calibrate_guard, sign_contract
from steadface.workflows.recognize import with_gallery


@pytest.fixture(scope="module")
def made(tmp_path_factory, network, faces):
    """A folder with a state dict, its signed contract beside it, a signed guard, and the key."""
    folder = tmp_path_factory.mktemp("signed")
    save_file(network.state_dict(), folder / "model.safetensors")
    key = write_key(folder / "key")
    stated = {"image_size": (32, 32), "pixel_range": "-1..1", "channel_order": "rgb"}
    calibrate(folder / "model.safetensors", faces, key=key, **stated)
    calibrate_guard(folder / "model.safetensors", faces, folder / "guard.json", rate=0.1, key=folder / "key")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy, to be attacked."""
    return shutil.copytree(made, tmp_path / "copy")


def edit(folder, *, anew=True, **changes):
    """As somebody without the key could write it: with a digest that is right, and the signatures as they were."""
    place = folder / "model.safetensors.contract.json"
    data = json.loads(place.read_text())
    signatures = data["seal"]["signatures"]
    data = {**data, **changes}
    if anew:
        data = sealed("contract", data)
        data["seal"]["signatures"] = signatures
    place.write_text(json.dumps(data))


def lowered(folder):
    thresholds = read_contract(folder / "model.safetensors").thresholds.to_json()
    return {**thresholds, "points": [{**point, "threshold": 0.0} for point in thresholds["points"]]}


def test_a_signed_contract_opens_with_its_key_and_without(folder):
    model, key = folder / "model.safetensors", folder / "key"
    assert Recognizer.open(model, key=key).contract == Recognizer.open(model).contract
    assert Recognizer.open(model, key=key, guard=folder / "guard.json").guard is not None


@pytest.mark.parametrize("change", ["thresholds", "mirror", "channel_order", "pixel_range", "notes"])
def test_what_was_changed_on_purpose_bears_no_right_signature(folder, change):
    changes = {"thresholds": lowered(folder), "mirror": True, "channel_order": "bgr", "pixel_range": "0..255"}
    edit(folder, **{change: changes.get(change, ["all is well"])})
    Recognizer.open(folder / "model.safetensors")  # without a key nothing shows
    with pytest.raises(Conflict, match="not right"):
        Recognizer.open(folder / "model.safetensors", key=folder / "key")


def test_a_signature_that_was_taken_off_is_missed_and_another_key_is_no_key(folder):
    model, place = folder / "model.safetensors", folder / "model.safetensors.contract.json"
    with pytest.raises(Conflict, match="not signed"):
        Recognizer.open(model, key=new_key())
    store_contract(model, read_contract(model), key=new_key())
    Recognizer.open(model, key=folder / "key")  # which a second signature leaves as it was
    plain = {name: value for name, value in json.loads(place.read_text()).items() if name != "seal"}
    for without in (plain, sealed("contract", plain), sealed("contract", plain, new_key())):
        place.write_text(json.dumps(without))
        with pytest.raises(Conflict, match="not signed"):
            Recognizer.open(model, key=folder / "key")


def test_the_signature_of_a_guard_is_none_of_a_contract(folder):
    model, place = folder / "model.safetensors", folder / "model.safetensors.contract.json"
    plain = {name: value for name, value in json.loads(place.read_text()).items() if name != "seal"}
    key = write_key(folder / "other")
    place.write_text(json.dumps(sealed("guard", plain, key)))
    with pytest.raises(Conflict, match="not right"):
        Recognizer.open(model, key=key)


def test_a_gallery_made_for_a_signed_contract_takes_no_other(folder, tmp_path):
    model, key, file = folder / "model.safetensors", folder / "key", tmp_path / "g.db"
    recognizer = Recognizer.open(model)
    with with_gallery(recognizer, file, key, create=True):
        assert recognizer.gallery.model.fingerprint.startswith(SIGNED)
    with with_gallery(Recognizer.open(model, guard=folder / "guard.json"), file, key):
        pass
    honest = read_contract(model)
    edit(folder, thresholds=lowered(folder))
    with pytest.raises(Conflict, match="not right"), with_gallery(Recognizer.open(model), file, key):
        pass
    place = folder / "model.safetensors.contract.json"
    data = json.loads(place.read_text())
    del data["seal"]
    for space in (honest.space, SIGNED + honest.space):
        place.write_text(json.dumps({**data, "space": space}))
        with (
            pytest.raises((Conflict, InvalidInput), match=r"not signed|no space"),
            Gallery.open(file, key=key) as gallery,
        ):
            Recognizer.open(model, gallery=gallery)
    store_contract(model, honest)  # which still bears its signature
    with with_gallery(Recognizer.open(model), file, key):
        pass


def test_a_gallery_of_an_unsigned_contract_goes_on_with_a_signed_one(folder, tmp_path):
    model, key, file = folder / "model.safetensors", folder / "key", tmp_path / "g.db"
    with Gallery.create(file, model=read_contract(model).identity, key=key) as gallery:
        assert Recognizer.open(model, gallery=gallery).gallery is gallery
        edit(folder, thresholds=lowered(folder))
        with pytest.raises(Conflict, match="not right"):  # what it bears has to be right all the same
            Recognizer.open(model, gallery=gallery)


def test_a_guard_that_was_changed_or_is_not_signed_is_refused(folder):
    model, key, guard = folder / "model.safetensors", folder / "key", folder / "guard.json"
    found = read_guard(guard, model=read_contract(model).space)
    write_guard(guard, found)
    with pytest.raises(Conflict, match=r"guard of .* is not signed"):
        Recognizer.open(model, key=key, guard=guard)


def test_what_there_is_can_be_signed_as_it_is(folder, tmp_path, network):
    model = folder / "model.safetensors"
    second = write_key(tmp_path / "second")
    contract, where = sign_contract(model, second)
    assert where == folder / "model.safetensors.contract.json"
    assert Recognizer.open(model, key=second).contract == contract
    Recognizer.open(model, key=folder / "key")
    bare = tmp_path / "bare.safetensors"
    save_file(network.state_dict(), bare)
    with pytest.raises(NotFound, match="no contract"):
        sign_contract(bare, second)
