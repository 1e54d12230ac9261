import os
import subprocess
import sys
from pathlib import Path

import pytest

from steadface.errors import InvalidInput, NotFound

from .conftest import Call

COMMANDS = (
    *("demo", "train", "resume", "harden", "evaluate", "audit", "attack-train", "faces"),
    *("calibrate", "detect", "align", "embed", "verify", "enroll", "identify", "gallery", "export"),
)


def test_help_names_every_command(call: Call) -> None:
    said = call("--help")
    assert said.code == 0
    assert "resist adversarial attack" in said.out
    for command in COMMANDS:
        assert f" {command} " in said.out


@pytest.mark.parametrize(
    ("command", "explained"),
    [
        (
            "demo",
            ["built-in synthetic faces", "clean beside gated", "--out", "Where the runs and the report go", "--set"],
        ),
        (
            "train",
            ["Train the recognisers of a recipe", "Ctrl-C saves and says how to go on", "--set", "Override a key"],
        ),
        ("resume", ["stopped or killed, from its newest checkpoint", "A run folder"]),
        ("faces", ["synthetic faces as identity folders", "--people", "How many identities", "--seed", "--size"]),
        (
            "evaluate",
            [
                "10-fold accuracy, error rates with intervals",
                "A run folder, a file of weights, an .onnx file or module:function",
                *("--images", "--pairs", "--json", "--bin", "--attack", "--steps", "--restarts", "--eps", "--norm"),
                *("--fmr", "--max-pairs", "--seed", "4/255", "may be repeated"),
            ],
        ),
    ],
)
def test_the_help_of_every_command_explains(call: Call, command: str, explained: list[str]) -> None:
    said = call(command, "--help")
    assert said.code == 0
    assert [words for words in explained if words not in said.out] == []


def test_without_a_command_there_is_help(call: Call) -> None:
    said = call()
    assert "Usage" in said.out + said.err


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (
            ["train", "nowhere.yaml"],
            "recipe nowhere.yaml: No such file or directory; recipes/ holds the ones that ship",
        ),
        (["train", "clean"], "give either data.images"),
        (["train", "clean", "--set", "data.images=/nowhere"], "/nowhere is not a folder of faces nor a .rec file"),
        (["train", "clean", "--set", "method.gate.kin=loss"], "did you mean kind?"),
        (["train", "clean", "--set", "data.images"], "write section.key=value"),
        (["resume", "/nowhere"], "/nowhere is not a run folder"),
        (["evaluate", "model"], "nothing to judge by: give --images DIR"),
        (["evaluate", "model", "--pairs", "p.txt"], "--pairs p.txt names images: give their folder with --images DIR"),
        (["evaluate", "/nowhere", "--images", "/tmp"], "/nowhere does not exist; give a run folder"),
        (["evaluate", "m", "--images", "/tmp", "--eps", "1/255"], "say which with --attack pgd"),
        (["evaluate", "m", "--images", "/tmp", "--attack", "pgd", "--eps", "wide"], "write 4/255 or 0.0157"),
        (["evaluate", "m", "--images", "/tmp", "--attack", "pgd", "--eps", "4"], "write 4/255"),
        (["evaluate", "m", "--images", "/tmp", "--device", "gpu"], "choose cpu, cuda or auto"),
        (["evaluate", "m", "--images", "/tmp", "--json", "/tmp"], "--json /tmp is a folder: name a file"),
        (["faces", "out", "--size", "9999"], "16 to 1024"),
        (["demo", "--set", "data.validation=0"], "set data.validation above 0"),
        (["demo", "--set", "evaluation.eps=[4]"], "write 4/255"),
    ],
)
def test_errors_say_what_to_do_with_the_exit_code_of_their_kind_and_no_traceback(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], remedy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if words[0] == "demo":
        words = [*words, "--set", "data.synthetic.people=8", "--set", "data.synthetic.images_per_person=2"]
    said = call(*words)
    absent = (NotFound.exit_code,) if "nowhere" in remedy else ()
    assert said.code in (InvalidInput.exit_code, *absent)
    assert said.err.startswith("error: ")
    assert remedy in said.err
    assert "Traceback" not in said.err + said.out
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize("words", [["evaluate"], ["train", "--sets", "a"], ["fly"], ["evaluate", "m", "--norm", "l7"]])
def test_wrong_usage_has_exit_code_2_too(call: Call, words: list[str]) -> None:
    said = call(*words)
    assert said.code == 2
    assert "Traceback" not in said.err + said.out


@pytest.mark.parametrize("name", ["[bold]name", "[/]", "[/tmp/x]", "a[0]", "{braces}"])
def test_brackets_in_names_are_printed_as_they_are(call: Call, name: str) -> None:
    said = call("resume", f"/nowhere/{name}")
    assert f"error: /nowhere/{name} is not a run folder" in said.err


def test_it_is_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "steadface", "gallery", "list", "--gallery", "nowhere.db"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (NotFound.exit_code, "")
    assert done.stderr.startswith("error: no gallery at nowhere.db")


@pytest.mark.parametrize(
    "words",
    [
        ["train", "{}"],
        ["train", "--set", "run.steps=1", "{}"],
        ["verify", "{}", "{}", "--model", "m"],
        ["identify", "{}", "--gallery", "g", "--model", "m"],
        ["enroll", "ada", "a.jpg", "{}", "--gallery", "g", "--model", "m"],
        ["detect", "{}"],
        ["evaluate", "m", "--bin", "{}"],
        ["evaluate", "m", "--images", ".", "--pairs", "{}"],
        ["gallery", "list", "--gallery", "{}"],
        ["gallery", "list", "--gallery", "g", "--key", "{}"],
        ["faces", "{}"],
    ],
)
def test_pipes_devices_and_names_that_nothing_has_are_refused_at_once(
    call: Call, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for path, said in (("pipe", "a pipe"), ("/dev/zero", "a device"), ("a" * 300, "not a path")):
        ended = call(*(word.format(path) for word in words))
        assert (ended.code, ended.out) == (2, ""), ended.err
        assert said in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
