"""What importing jsonschema this way leaves out, and what it leaves as it was."""

import subprocess
import sys

from needs import need

SCRIPT = """
import sys
import cliplab.lab.kernels.light_jsonschema
import nbformat, papermill
assert not {"lark", "rfc3987_syntax"} & set(sys.modules), "the parsers were made"
nbformat.validate(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]))
damaged = {"cells": [{"cell_type": "x"}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
try:
    nbformat.validate(damaged)
except nbformat.ValidationError as error:
    assert "cell_type" in str(error), error
else:
    raise AssertionError("a damaged notebook passed")
import rfc3987_syntax
assert rfc3987_syntax.is_valid_syntax("iri", "https://example.org/é")
"""


def test_notebooks_are_validated_and_the_parsers_stay_importable():
    need("rfc3987_syntax", "lab")
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
