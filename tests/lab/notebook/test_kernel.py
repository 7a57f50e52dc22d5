"""Which kernel runs a notebook."""

import json

import pytest

from cliplab.lab.notebook.kernel import Kernel, check_translatable, is_python, kernel_of


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """Kernels that Jupyter finds: of R, of another Python, and one whose file is damaged."""
    for name, language in [("ir", "R"), ("my_env", "python"), ("broken", "")]:
        folder = tmp_path / "kernels" / name
        folder.mkdir(parents=True)
        spec = {"argv": ["true", "{connection_file}"], "display_name": name, "language": language}
        (folder / "kernel.json").write_text(json.dumps(spec) if language else "{")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))


def notebook(**metadata: object) -> dict:
    return {"metadata": metadata}


@pytest.mark.parametrize(
    ("metadata", "name", "kernel"),
    [
        ({}, None, Kernel()),
        ({"kernelspec": {"name": "python3"}}, None, Kernel()),
        ({"kernelspec": {"name": "Python3"}, "language_info": {"name": "python"}}, None, Kernel()),
        ({"kernelspec": {"name": "python"}}, None, Kernel()),  # so to jupyter_client as well
        ({}, "python", Kernel()),
        ({"kernelspec": "python3", "language_info": []}, None, Kernel()),
        ({"kernelspec": {"name": "ir"}}, None, Kernel("ir", "R")),
        ({"kernelspec": {"name": "my_env"}}, None, Kernel("my_env", "python")),
        ({"kernelspec": {"name": "gone"}}, "my_env", Kernel("my_env", "python")),
        ({"kernelspec": {"name": "gone"}}, "python3", Kernel()),
        ({"language_info": {"name": "R"}}, "ir", Kernel("ir", "R")),
    ],
)
def test_the_kernel_is_the_one_asked_for_or_the_notebooks_own(kernels, metadata, name, kernel):
    assert kernel_of(notebook(**metadata), name) == kernel


@pytest.mark.parametrize(
    ("metadata", "name", "complaint"),
    [
        ({"kernelspec": {"name": "gone"}}, None, "no kernel 'gone' here, only broken, ir, my_env"),
        ({}, "x/../y", "no kernel 'x/../y' here"),
        ({"kernelspec": {"name": "broken"}}, None, "kernel 'broken' cannot be had: "),
        ({"language_info": {"name": "julia"}}, None, "it is in julia and names no kernel; -k"),
    ],
)
def test_a_kernel_that_is_not_there_is_named(kernels, metadata, name, complaint):
    with pytest.raises(ValueError, match="kernel") as caught:
        kernel_of(notebook(**metadata), name)
    assert complaint in str(caught.value)


def test_values_that_papermill_cannot_write_in_a_language_are_refused():
    check_translatable(Kernel("ir", "R"), {"lr": [1, {"a": None}]})
    for kernel, value in [(Kernel("ocaml", "OCaml"), 1), (Kernel("bash", "bash"), {"a": 1})]:
        with pytest.raises(ValueError, match=f"lr: papermill has no {kernel.language} for that"):
            check_translatable(kernel, {"lr": value})
    assert is_python("") is is_python("IPython") is True
