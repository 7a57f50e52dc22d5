import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cliplab.lab.batch.lock import NoLocks, Taken, locked


def test_one_holder_at_a_time(tmp_path):
    folder = tmp_path / "a" / "b"
    with locked(folder):
        with pytest.raises(Taken, match="b"), locked(folder):
            pass
        with locked(tmp_path / "a" / "c"):
            pass
    with locked(folder):
        pass
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_lock_ends_with_its_holder_however_it_ends(tmp_path):
    code = f"""
import time
from pathlib import Path
from cliplab.lab.batch.lock import locked
with locked(Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Taken), locked(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with locked(tmp_path):
        pass


def test_many_contenders_exclude_each_other(tmp_path):
    inside, most, rounds = [0], [0], [0]

    def contend() -> None:
        while rounds[0] < 300:
            try:
                with locked(tmp_path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    time.sleep(0)
                    rounds[0] += 1
                    inside[0] -= 1
            except Taken:
                time.sleep(0)

    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(NoLocks, match="has no locks"), locked(tmp_path):
        pass
