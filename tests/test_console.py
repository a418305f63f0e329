import io

from rich.console import Console

from recsys_mtl.console import LineListener, listening
from recsys_mtl.progress import Progress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def lines_of(*steps):
    """What a listener writes, given (seconds, progress) pairs."""
    clock, lines = Clock(), []
    listener = LineListener(lines.append, clock)
    for seconds, progress in steps:
        clock.now = float(seconds)
        listener(progress)
    return lines


def test_a_stage_is_told_when_it_starts_and_when_it_ends():
    assert lines_of(
        (0, Progress("train", 0, 2_000)),
        (1, Progress("train", 1_000, 2_000)),
        (2, Progress("train", 2_000, 2_000, "loss 0.4")),
    ) == ["train: 0 of 2,000, 0 s", "train: 2,000 of 2,000, 2 s  loss 0.4"]


def test_a_long_stage_is_told_every_ten_seconds():
    steps = [(s, Progress("train", s, None)) for s in range(60)]
    assert [line.split(",")[0] for line in lines_of(*steps)] == [
        f"train: {s}" for s in range(0, 60, 10)
    ]


def test_an_end_is_told_once():
    end = Progress("bundle", 1, 1)
    assert len(lines_of((0, end), (1, end), (30, end))) == 1


def test_a_pipe_gets_plain_lines():
    written = io.StringIO()
    with listening(Console(file=written, force_terminal=False)) as on_progress:
        on_progress(Progress("features [x]", 5, None, "rows"))
    assert written.getvalue() == "features [x]: 5, 0 s  rows\n"


def test_a_terminal_gets_a_bar_a_stage():
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=120)
    with listening(console) as on_progress:
        on_progress(Progress("features", 10, 10))
        on_progress(Progress("train", 1, None, "loss 0.41"))
    last = written.getvalue()
    assert "features" in last
    assert "100%" in last
    assert "loss 0.41" in last
