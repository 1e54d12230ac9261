"""What a person sees while something runs: progress bars, warnings and tables.

Everything that is printed passes through `Terminal`, tables, log and errors too; what is for machines goes through
`steadface.cli.options.print_json`.
"""

import logging
import shlex
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from steadface.errors import visible
from steadface.machine import Sharing

if TYPE_CHECKING:  # the gallery's commands print without what training and reports take to load
    from rich.progress import TaskID

    from steadface.report.arm import Arm
    from steadface.training.loop import Outcome
    from steadface.training.loop import Progress as Training


class Terminal(Console):
    """A console that obeys nothing which stands in the texts it is given.

    A `str`, in a table too, is one line as it is: brackets and colons in it are no markup and no emoji, and what is
    not seen of it (`steadface.errors.visible`) is shown as escapes. Styles and more lines take a `Text`, as `line`
    makes it; of that, too, only rich's own codes reach the terminal.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render_str(self, text: str, **given: Any) -> Text:
        return super().render_str(visible(text), **given)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for part in super().render(renderable, options):
            yield part if part.control else Segment(visible(part.text, lines=True), part.style)

    def on_broken_pipe(self) -> None:
        """The reader may leave: that is for `steadface.cli.ending` to say, not for rich to end with 1."""
        raise


console = Terminal()
errors = Terminal(stderr=True)


class TerminalLog(logging.Handler):
    """The package's log as the command says things: rich's own handler takes a tenth of a second to load."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            say_warning(self.format(record))
        else:
            errors.print(self.format(record), soft_wrap=True, highlight=False)


def show_warnings() -> None:
    """Sends the package's log to the terminal, and what Python's libraries warn of, which name what they were given."""
    warnings.showwarning = _say_warned
    logger = logging.getLogger("steadface")
    logger.handlers = [TerminalLog()]
    logger.setLevel(logging.INFO)


def _say_warned(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
) -> None:
    say_warning(f"{message} ({category.__name__} in {filename}, line {lineno})")


def line(*parts: str | tuple[str, str]) -> Text:
    """One line of words, each as it is or with its style."""
    return Text.assemble(*(visible(part) if isinstance(part, str) else (visible(part[0]), part[1]) for part in parts))


def say_error(message: str) -> None:
    """What went wrong, in one line."""
    errors.print(line(("error:", "bold red"), " ", message), soft_wrap=True, highlight=False)


def say_warning(message: str) -> None:
    """Something that the user should know of what follows or went before."""
    errors.print(line(("warning:", "yellow"), " ", message), soft_wrap=True, highlight=False)


@contextmanager
def training_bar(name: str) -> Iterator[Callable[["Training"], None]]:
    """A bar with loss, gate, duty cycle, images/s and the time left; a plain line now and then off a terminal.

    Either says when other programs take the cores that the training wants.
    """
    import torch
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=console, transient=not console.is_terminal) as bar:
        task = bar.add_task(visible(name), total=1.0, status="starting")
        spoken = 0
        sharing = Sharing()

        def observe(at: "Training") -> None:
            nonlocal spoken
            status = status_line(at, sharing.note(torch.get_num_threads()))
            bar.update(task, completed=at.done, status=status.markup)
            tenth = int(10 * at.done)
            if not console.is_terminal and tenth > spoken:
                spoken = tenth
                console.print(line(f"{name}: {at.done:4.0%}  ").append_text(status))

        yield observe


def status_line(at: "Training", note: str = "") -> Text:
    """Step, loss, gate, duty cycle, speed and time left in one line, and a note on them."""
    left = at.seconds * max(0.0, 1 - at.done) / at.done if at.done > 0 else 0.0
    gate = ("open", "green") if at.record.gate_open else "closed"
    return line(
        f"step {at.step}  loss {at.record.loss:.3f}  gate ",
        gate,
        f"  duty {at.duty_cycle:.0%}  {at.images_per_second:.0f} images/s  {int(left // 60)}:{int(left % 60):02d} left",
        (f"  {at.skipped} skipped" if at.skipped else "", "yellow"),
        (f"  {note}" if note else "", "yellow"),
    )


@contextmanager
def stage_bar(*, left: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage, from the first on that is reported: what is refused before leaves no empty line. With how
    long it has taken, or how many a second are done and how much time is `left`.
    """
    from rich import progress

    class Speed(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    name = progress.TextColumn("{task.description}", markup=False)
    times = (Speed(), progress.TimeRemainingColumn()) if left else (progress.TimeElapsedColumn(),)
    bar = progress.Progress(
        name, progress.BarColumn(bar_width=30), progress.MofNCompleteColumn(), *times, console=errors
    )
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        bar.start()
        if stage not in tasks:
            tasks[stage] = bar.add_task(visible(stage), total=total)
        bar.update(tasks[stage], completed=done, total=total)

    try:
        yield report
    finally:
        if tasks:
            bar.stop()


def say_outcome(outcome: "Outcome", *, command: str | None = None) -> None:
    """Where a run stands, and the ``command`` to go on with where it was stopped (``steadface resume`` by default)."""
    state = "finished" if outcome.finished else "stopped"
    skipped = f", {outcome.skipped} of them skipped" if outcome.skipped else ""
    console.print(
        f"{state}: {outcome.steps} steps{skipped} in {outcome.seconds / 60:.1f} minutes, "
        f"gate open {outcome.duty_cycle:.0%}"
    )
    if not outcome.finished:
        command = command or shlex.join(["steadface", "resume", str(outcome.folder)])
        console.print(line("go on with: ", (command, "bold")), soft_wrap=True)


def candidates_table(candidates: Mapping[str, Any], max_clean_drop: float) -> Table:
    """What a run chose its model from, and why."""
    from steadface.report.fonts import load_matplotlib
    from steadface.report.text import interval, percent

    load_matplotlib()
    from steadface.report.candidates import rows as candidate_rows  # loads matplotlib

    table = Table(title="Candidates, on people held out: points against the recogniser as it came (95 % interval)")
    table.add_column("")
    for head in ("clean EER %", "lost", "attacks succeed %", "gained"):
        table.add_column(head, justify="right")
    table.add_column("")
    for row in candidate_rows(candidates, max_clean_drop):
        lost, gained = (f"{100 * rate.rate:.2f} ({interval(rate, 2)})" for rate in (row.lost, row.gained))
        table.add_row(row.name, percent(row.clean, 2), lost, percent(row.attacked), gained, row.verdict)
    return table


def arms_table(arms: Sequence["Arm"]) -> Table:
    """Clean and attacked error rates of several arms side by side, with what each cost."""
    from steadface.report.arm import attacked, radii, settings
    from steadface.report.text import decimal, interval, minutes, percent, radius

    goals: tuple[Literal["dodging"], Literal["impersonation"]] = ("dodging", "impersonation")
    table = Table(title="Clean and attacked error rates, in % (95 % interval)")
    table.add_column("")
    for arm in arms:
        table.add_column(arm.name, justify="right")
    table.add_row("steps", *(str(arm.steps) for arm in arms))
    table.add_row("minutes", *(minutes(arm.seconds) for arm in arms))
    table.add_row("gate open", *(percent(arm.duty_cycle or 0.0, 0) for arm in arms))
    table.add_row("accuracy", *(percent(arm.figure("accuracy")) for arm in arms))
    table.add_row("EER", *(percent(arm.figure("eer")) for arm in arms))
    table.add_row("impostor cosine", *(decimal(arm.figure("impostor_mean"), 2) for arm in arms), end_section=True)
    for setting in settings(arms):
        for goal in goals:
            for eps in (0.0, *radii(arms, setting)):
                name = f"FNMR, dodging {setting.norm}" if goal == "dodging" else f"FMR, impersonation {setting.norm}"
                rates = [attacked(arm, setting, goal).get(eps) for arm in arms]
                cells = ("-" if rate is None else f"{percent(rate.rate)} ({interval(rate)})" for rate in rates)
                table.add_row(
                    f"{name} {radius(eps, setting.norm)}" if eps else f"{name[:4].strip(', ')}, clean", *cells
                )
    return table


def under_attack(arm: "Arm") -> Iterator[str]:
    """How often the attacks on a run's model succeed at the largest radius, in words; nothing where there were none."""
    from steadface.report.arm import attacked, radii, settings
    from steadface.report.text import interval, percent, radius

    goals: tuple[tuple[Literal["dodging", "impersonation"], str], ...] = (
        ("dodging", "genuine pairs refused"),
        ("impersonation", "impostors accepted"),
    )
    for setting in settings([arm]):
        if not (tried := radii([arm], setting)):
            continue
        found = [(attacked(arm, setting, goal).get(tried[-1]), what) for goal, what in goals]
        rates = [f"{percent(rate.rate)} % ({interval(rate)}) of {what}" for rate, what in found if rate is not None]
        yield f"attacked at {setting.norm} {radius(tried[-1], setting.norm)}: {', '.join(rates)}"


def say_where(what: str, path: Path) -> None:
    """Where a thing was written."""
    console.print(line(f"{what}: ", (str(path), "bold")), soft_wrap=True)
