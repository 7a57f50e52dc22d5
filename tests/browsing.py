"""A clone in which ``make lab`` runs, and a notebook opened there in a browser."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from waiting import LONG, wait_until

ROOT = Path(__file__).parents[1]
COMMENT = "# from cliplab.lab import load_preset"
# Whether a notebook is open; its code cells have run, or one failed.
CONTEXT = "window.jupyterapp.shell.currentWidget?.context"
CONTENT = f"{CONTEXT}.model"
# Not while its kernel starts: a restart then may lose the cells that are sent to it.
IDLE = f"{CONTEXT}.sessionContext.session?.kernel?.status === 'idle'"
OPEN = f"name => {CONTEXT}?.path === name && {CONTEXT}.isReady && {IDLE}"
RAN = f"""() => {{
    const code = [...{CONTENT}.cells].filter(cell => cell.type === "code");
    const numbers = cell => [...Array(cell.outputs.length).keys()];
    const failed = code.some(c => numbers(c).some(i => c.outputs.get(i).type === "error"));
    return code.length && (failed || code.every(cell => cell.executionCount !== null));
}}"""
# What an earlier run left would pass for this one's.
CLEAR = f"() => {{ for (const cell of {CONTENT}.cells) cell.clearExecution?.(); }}"
STATE = f"""() => [{CONTEXT}.sessionContext.kernelDisplayStatus,
    [...{CONTENT}.cells].map(cell => cell.executionState ?? null),
    document.querySelector(".jp-Dialog")?.innerText ?? "no dialog"]"""
SOON = 500.0  # how often a page is asked, in ms


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def clone_to(folder: Path) -> Path:
    """A repository of its own that holds what this checkout does, committed."""
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all")


@contextmanager
def make_lab(clone: Path, own: Path) -> Iterator[str]:
    """``make lab`` in a clone, with settings of its own; the server's address."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "PYTHONPATH": str(clone), "CLIPLAB_DATA": str(own / "data")}
    env |= {f"JUPYTER_{kind}_DIR": str(own / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    env |= {f"JUPYTERLAB_{kind}_DIR": str(own / kind) for kind in ("SETTINGS", "WORKSPACES")}
    said = "--no-browser --allow-root --ServerApp.port=0 --expose-app-in-browser"
    command = ["make", "lab", "VENV=active", f"ARGS={said}"]
    with open(own / "log", "w") as log:
        server = psutil.Popen(command, cwd=clone, env=env, stdout=log, stderr=log)
    try:
        wait_until(lambda: address(own) or server.poll() is not None)
        assert server.poll() is None, (own / "log").read_text()
        yield address(own)
    finally:
        processes = [*server.children(recursive=True), server]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, LONG)


def address(own: Path) -> str:
    """Where the server says that it is; "" before it does."""
    for path in (own / "RUNTIME").glob("jpserver-*.json"):
        if text := path.read_text():
            said = json.loads(text)
            return f"{said['url']}lab/tree/NAME?reset&token={said['token']}"
    return ""


@contextmanager
def browser() -> Iterator[object]:
    """Playwright's Chromium, else the one that is installed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        path = own if own.exists() else shutil.which("chromium")
        yield playwright.chromium.launch(executable_path=path)


def restart_and_run_all(page, url: str, name: str) -> None:
    """Open a notebook, choose "Restart Kernel and Run All Cells…", save it, end its kernel."""
    page.set_default_timeout(1000 * LONG)
    page.goto(url.replace("NAME", name))
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function(OPEN, arg=name, polling=SOON)
    page.evaluate(CLEAR)
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Restart Kernel and Run All Cells").click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    try:
        page.wait_for_function(RAN, polling=SOON)
    except Exception as error:
        raise AssertionError(f"{name} did not end: {page.evaluate(STATE)}") from error
    page.keyboard.press("Control+s")
    page.wait_for_function(f"() => !{CONTENT}.dirty", polling=SOON)
    page.evaluate(f"() => {CONTEXT}.sessionContext.shutdown()")
