"""Definitions that differ between two states, of modules beside the notebook as well."""

from cliplab.lab.attest.definitions import gone_definitions, new_definitions
from cliplab.lab.runs.keys import closure


def test_a_module_beside_the_notebook_is_compared_wherever_it_lies(tmp_path, make_notebook):
    tree, away = tmp_path / "tree", tmp_path / "away"
    (tree / "cliplab").mkdir(parents=True)
    (tree / "cliplab" / "__init__.py").write_text("")
    for folder in (tree / "notebooks", away):
        notebook = make_notebook(folder / "a.ipynb", "import helper")
        states = []
        for source in ("def f(): return 1\ndef g(): return 1", "def f(): return 1\nX = 2"):
            (folder / "helper.py").write_text(source)
            states.append(closure(notebook, tree / "cliplab"))
        (new,), (gone,) = new_definitions(*states), gone_definitions(*states)
        assert (new.name, gone.name) == ("helper:X", "helper:g")
        path = folder / "helper.py"
        below = path.relative_to(tree) if folder != away else path
        assert new.path == below.as_posix()
        assert gone.entered({"functions": [[gone.path, 2]], "modules": [], "cells": []})
