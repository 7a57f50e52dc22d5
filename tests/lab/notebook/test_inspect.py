"""What ``cliplab inspect`` says of a notebook's parameters."""

import json

import pytest

from cliplab.lab.notebook.inspect import inspect_text


@pytest.fixture
def inspected(tmp_path):
    def text_of(source: str, tag: str = "parameters", **metadata: object) -> str:
        code = {"cell_type": "code", "outputs": [], "execution_count": None}
        cell = {**code, "source": source, "metadata": {"tags": [tag]}}
        whole = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": [cell]}
        (tmp_path / "x.ipynb").write_text(json.dumps(whole))
        return inspect_text(tmp_path / "x.ipynb").replace(f"{tmp_path}/", "")

    return text_of


def test_names_types_defaults_and_help_are_listed(inspected):
    cell = 'lr: float = 0.1  # step [> 0]\nnames = ["a"]  # of all\nn = 2 * 3\nx = None\nk: int'
    assert inspected(cell) == (
        "x.ipynb (python)\n"
        "  lr: float = 0.1        step [> 0]\n"
        "  names: (list) = ['a']  of all\n"
        "  n: (computed) = 2 * 3\n"
        "  x: (None) = None\n"
        "  k: int"
    )


@pytest.mark.parametrize(
    ("language", "cell", "lines"),
    [
        ("R", "lr <- 0.1  # step\nok <- TRUE\n", ["lr: (float) = 0.1  step", "ok: (bool) = TRUE"]),
        ("julia", "n = 3\nm = nothing", ["n: (int) = 3", "m: (None) = nothing"]),
        ("scala", 'val name = "a"  // who', ['name: (str) = "a"  who']),
        ("bash", "n=3\nx=$(ls)", ["n: (int) = 3", "x: (computed) = $(ls)"]),
    ],
)
def test_other_languages_are_listed_as_far_as_they_look_alike(inspected, language, cell, lines):
    found = inspected(cell, language_info={"name": language}).splitlines()
    assert found[0] == f"x.ipynb ({language})"
    assert [" ".join(line.split()) for line in found[1:]] == [" ".join(s.split()) for s in lines]


def test_a_notebook_without_parameters_says_what_it_takes(inspected):
    assert "any name that it does not set itself" in inspected("lr = 1", tag="other")
    assert inspected("# nothing").endswith("no parameters are declared")
