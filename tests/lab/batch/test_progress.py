import os
import pty
import re
import sys
import termios
from contextlib import suppress
from pathlib import Path

from cliplab.lab.batch.lastline import LastLine
from cliplab.lab.batch.progress import Progress
from cliplab.lab.batch.spec import RunSpec


def run_spec(folder: Path, label: str) -> RunSpec:
    spec = RunSpec(folder / "01.ipynb", "01", "quick", {}, label, "", folder, label)
    spec.directory.mkdir(parents=True)
    return spec


def test_the_last_line_written_stands_beside_the_cell(tmp_path):
    now = [10.0]
    bar = LastLine(tmp_path / "progress", clock=lambda: now[0])
    bar.begin("cell 2/9")
    assert (tmp_path / "progress").read_text() == "cell 2/9"
    bar.write("\rtraining:  10%|#  | 1/10\r\x1b[32mtraining:  20%|## | 2/10\x1b[0m")
    assert (tmp_path / "progress").read_text() == "cell 2/9 training:  20%|## | 2/10"
    bar.write("too soon")
    assert "20%" in (tmp_path / "progress").read_text()
    now[0] += 0.6
    bar.write("\n")
    bar.write("\rtraining:  90%\r")
    assert (tmp_path / "progress").read_text() == "cell 2/9 training:  90%"
    bar.begin("cell 3/9")
    assert (tmp_path / "progress").read_text() == "cell 3/9"


def test_a_display_that_cannot_be_written_stops_nothing(tmp_path):
    bar = LastLine(tmp_path / "none" / "progress")
    bar.begin("cell 1/2")
    bar.write("text\n")


def test_elsewhere_than_on_a_terminal_there_are_plain_lines(tmp_path, capsys):
    one, two = run_spec(tmp_path, "one"), run_spec(tmp_path, "two")
    progress = Progress()
    progress.begin(3, 2, lines=1)
    progress.refresh([one])
    progress.refresh([one])
    progress.finished(one, failed=False)
    progress.retried(two, "it broke")
    progress.refresh([two])
    progress.finished(two, failed=True)
    progress.close()
    progress.say("that was all")
    text = re.sub(r"\d+\.\d s", "T", capsys.readouterr().err)
    assert text.splitlines() == [
        "3 done, 2 to run",
        "start one",
        "done one (1/2, T)",
        "retry two: it broke",
        "start two",
        "FAILED two (2/2, T)",
        "that was all",
    ]


def read_to_the_end(terminal: int) -> str:
    text = b""
    with suppress(OSError):  # how Linux says that the other end is closed
        while some := os.read(terminal, 2**16):
            text += some
    return text.decode()


def test_a_terminal_shows_one_line_a_running_notebook(tmp_path):
    specs = [run_spec(tmp_path, name) for name in ("one", "two", "three", "a-long-name" * 9)]
    specs[0].progress_path.write_text("cell 3/9 training:  20%|##   | 2/10 [00:00<00:02]")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    terminal = os.fdopen(theirs, "w")
    before = sys.stderr
    sys.stderr = terminal
    try:
        progress = Progress()
        progress.begin(0, 4, lines=3)
        progress.refresh([specs[0], specs[3]])
        progress.refresh(specs)
        progress.finished(specs[0], failed=False)
        progress.finished(specs[1], failed=True)
        progress.close()
    finally:
        sys.stderr = before
        terminal.close()
    shown = read_to_the_end(ours)
    os.close(ours)
    assert "one, 0:00: cell 3/9 training:  20%| 2/10 [00:00" in shown
    assert "a-long-namea-long-name" in shown
    assert max(map(len, re.findall(r"a-long-name.*?…", shown))) == 57
    assert "and 2 more" in shown
    assert "FAILED two (2/4" in shown
    assert "50%" in shown
