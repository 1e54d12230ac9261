"""What hardening makes of recognisers of any origin: each hardened for so many minutes, and audited before and after.

    python benchmarks/harden_any.py MODEL ... --images FACES --lfw LFW --pairs pairs.txt --minutes 10 --out FOLDER
    python benchmarks/harden_any.py MODEL ... (the same) --only MODEL      # works on this one alone

MODELs are what `steadface harden` takes, with `NAME=` before them where they shall be called otherwise. What has been
done lies in FOLDER/NAME, and is not done again: a run that was stopped goes on, and so does an audit. Where no
candidate is shown to resist better within the clean accuracy allowed the last moment is audited all the same, and
the table says so. The people of FACES must not be among those of LFW.
"""

import argparse
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from steadface.attacks.balls import radius_from
from steadface.audit_record import GOALS
from steadface.recognizers import open_recognizer
from steadface.report.text import with_interval
from steadface.training.networks import kept_file, read_facts
from steadface.training.selection.candidates import read_candidates
from steadface.training.selection.rules import NothingGained
from steadface.workflows.audit import audit_request, read_audit, run_audit
from steadface.workflows.evaluate import evaluate_model
from steadface.workflows.harden import ORIGINAL, Wishes, code_of, harden

COLUMNS = (
    "model",
    "clean accuracy %",
    "dodging {eps} %",
    "impersonation {eps} %",
    "median distance, dodging",
    "median distance, impersonation",
)


def main() -> None:
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = []
    for given in options.models:
        name, _, spec = given.rpartition("=")
        name = name or Path(spec.partition(":")[0]).stem
        folder = options.out / name
        if options.only in (None, name, spec):
            work(spec, folder, options)
        rows += [row(name, folder, which, options) for which in ("original", "hardened") if (folder / which).exists()]
    eps = options.eps
    print(f"| {' | '.join(COLUMNS).format(eps=eps)} | steps |\n|---{'|---:' * len(COLUMNS)}|")
    print("\n".join(line for line in rows if line))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="the MODEL, or its NAME, that is worked on now")
    parser.add_argument("--images", type=Path, help="aligned faces to train on, one folder per person")
    parser.add_argument("--lfw", type=Path, help="aligned faces to judge on")
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--max-clean-drop", type=float, default=0.01)
    parser.add_argument("--preset", choices=["quick", "standard", "full"], default="standard")
    parser.add_argument("--eps", default="2/255")
    parser.add_argument("--max-pairs", type=int, default=100, help="attacked, of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    return parser.parse_args()


def work(spec: str, folder: Path, options: argparse.Namespace) -> None:
    """Hardens one recogniser, and judges it and what came of it."""
    run = folder / "run"
    wishes = Wishes(minutes=options.minutes, max_clean_drop=options.max_clean_drop)
    overrides = (f"run.seed={options.seed}", *options.set)
    try:
        outcome = harden(spec, options.images, run, wishes=wishes, overrides=overrides).outcome
    except NothingGained as nothing:
        print(nothing)
        found = read_candidates(run)
        assert found is not None
        last = max((one for one in found["candidates"] if one["kind"] == "look"), key=lambda one: int(one["step"]))
        harden(spec, options.images, run, wishes=replace(wishes, choose=last["name"]), overrides=overrides)
    else:
        if not outcome.finished:
            raise SystemExit("stopped; the same command goes on")
    original, code = kept_file(run, ORIGINAL), code_of(open_recognizer(spec))
    before, after = (str(one) if code is None else f"{code}@{one}" for one in (original, run))
    for which, model in (("original", before), ("hardened", after)):
        judge(model, folder / which, options)


def judge(model: str, folder: Path, options: argparse.Namespace) -> None:
    """Accuracy on all pairs, and an audit; what is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "evaluation.json").exists():
        _, evaluation = evaluate_model(model, images=options.lfw, pairs=options.pairs, mirror=False, seed=options.seed)
        (folder / "evaluation.json").write_text(json.dumps(evaluation.to_json()), encoding="utf-8")
    request = audit_request(
        model,
        images=options.lfw,
        pairs=options.pairs,
        preset_name=options.preset,
        eps=[radius_from(options.eps)],
        max_pairs=options.max_pairs,
        seed=options.seed,
    )
    run_audit(request, folder)


def row(name: str, folder: Path, which: str, options: argparse.Namespace) -> str:
    """A line of the table; empty where it is not judged to the end."""
    try:
        evaluation = json.loads((folder / which / "evaluation.json").read_text(encoding="utf-8"))
        audit = read_audit(folder / which)
    except Exception as error:  # whatever is missing
        print(f"{name}, {which}: {error}")
        return ""
    eps = radius_from(options.eps)
    attacked = {entry.goal: entry for entry in audit.worst_case if abs(entry.eps - eps) < 1e-6}
    cells = [f"{100 * evaluation['accuracy']:.2f}"]
    for goal in GOALS:
        entry = attacked[goal]
        cells.append(with_interval(100 * entry.error_rate, *(100 * end for end in entry.ci), digits=0))
    for goal in GOALS:
        found = audit.distances["linf"][goal]
        ends = (found.ci[0] or 0.0, found.ci[1] or found.radius)
        cells.append(with_interval(255 * (found.median or found.radius), *(255 * end for end in ends), digits=2))
    steps, chosen = _run(folder / "run") if which == "hardened" else ("", "as it came")
    return f"| {name}, {chosen} | {' | '.join(cells)} | {steps} |"


def _run(run: Path) -> tuple[str, str]:
    """Steps of training, and which candidate became the model, with what was shown of it."""
    facts: dict[str, Any] = read_facts(run)
    asked = (read_candidates(run) or {}).get("model") or {}
    forced = asked.get("asked", {}).get("choose") is not None
    said = f"{facts['selected']['name']}{', not shown to gain' if forced else ''}"
    return f"{facts['steps']:,}", said


if __name__ == "__main__":
    main()
