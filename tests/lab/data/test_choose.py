import pytest

from cliplab.lab.data.choose import choose


def test_what_has_the_name_or_all_names_in_the_error():
    readers = {"penn": len, "fixture": None}
    assert choose(readers, "penn", "corpus") is len
    assert choose(readers, "fixture", "corpus") is None
    with pytest.raises(ValueError, match="no corpus 'brown': choose one of penn, fixture"):
        choose(readers, "brown", "corpus")
