from cliplab.lab.data.catalogue import DATA_SETS, list_data


def test_list_data_has_what_a_reader_must_know() -> None:
    rows = list_data()
    assert {"wikipedia", "penn"} <= {row["name"] for row in rows}
    for row in rows:
        assert {"package", "version", "licence", "notice", "size"} < row.keys()
        assert all(row.values())


def test_data_sets_have_distinct_names_and_pins() -> None:
    assert [name for name, dataset in DATA_SETS.items() if name != dataset.name] == []
    assert all(len(dataset.sha256) == 64 for dataset in DATA_SETS.values())
