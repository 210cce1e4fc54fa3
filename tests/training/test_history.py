import json

import pytest

from chartae.errors import ConfigurationError, DataError
from chartae.training import History


@pytest.fixture
def history():
    record = History()
    for k in range(3):
        terms = {"loss": 3.0 - k, "kl": 1.0 / 3.0 + k}
        validation = {"loss": 4.0 - k, "kl": 0.5}
        record.add(terms, validation, learning_rate=1e-3, seconds=0.1)
    record.best_epoch, record.stopped = 2, "finished"
    return record


def test_it_holds_every_term_of_every_epoch(history):
    assert history.num_epochs == 3
    assert history.train == {"loss": [3.0, 2.0, 1.0], "kl": [1 / 3, 4 / 3, 7 / 3]}
    assert history.validation["loss"] == [4.0, 3.0, 2.0]


def test_it_is_saved_as_json_and_comes_back(history, tmp_path):
    path = tmp_path / "history.json"
    history.save(path)
    assert json.loads(path.read_text())["train"]["loss"] == [3.0, 2.0, 1.0]
    assert History.load(path) == history


def test_people_read_epochs_from_1(history):
    assert repr(history) == "History(3 epochs, best 3 with loss 2, stopped: finished)"
    assert repr(History()) == "History(0 epochs, stopped: running)"


def test_it_replaces_a_history_and_nothing_else(history, tmp_path):
    path = tmp_path / "history.json"
    History().save(path)
    history.save(path)
    assert History.load(path) == history
    path.write_text(text := '{"train": {"loss": [3.0]}}')
    with pytest.raises(
        ConfigurationError, match="path: .*history.json' was not written by chartae"
    ):
        history.save(path)
    assert path.read_text() == text


@pytest.mark.parametrize("text", ['{"train": {', '{"weights": 3}', "[1, 2]", "{}", "3", "\xff"])
def test_what_is_not_a_history_is_refused(tmp_path, text):
    path = tmp_path / "history.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match="is not a saved History"):
        History.load(path)
    with pytest.raises(DataError, match="is not a saved History"):
        History.load(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": [1.0]}, "train is list: expected a mapping"),
        ({"train": {"loss": 3.0}}, r"train\['loss'\] holds something else: expected a list"),
        ({"train": {"loss": [3.0, {}, 1.0]}}, r"train\['loss'\] holds something else"),
        ({"validation": {"kl": [0.5]}}, r"validation\['kl'\] and seconds are of different lengths"),
        ({"seconds": None}, "seconds holds something else"),
        ({"learning_rate": [True] * 3}, "learning_rate holds something else"),
        ({"best_epoch": 3}, "best_epoch=3: expected an integer at least 0 and at most 2"),
        ({"best_epoch": "x"}, "best_epoch='x': expected an integer"),
        ({"stopped": "tired"}, "stopped='tired' is not known"),
        ({"stopped": []}, r"stopped=\[\] is not known"),
        ({"others": 1}, "it holds .*others"),
    ],
)
def test_records_of_another_form_are_refused(history, tmp_path, change, message):
    path = tmp_path / "history.json"
    history.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=f"is not a saved History: {message}"):
        History.load(path)


def test_a_record_of_any_depth_is_refused(tmp_path):
    path = tmp_path / "history.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="is not a saved History"):
        History.load(path)
