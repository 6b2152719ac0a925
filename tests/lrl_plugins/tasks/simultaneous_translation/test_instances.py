"""SimulEval's log, written and read back; SimulEval itself reads it in test_simultaneous_metrics.py."""

import json

import pytest

from lrl_plugins.tasks.simultaneous_translation.instances import Instance, read_instances, write_instances

SENTENCES = [
    Instance(0, "ich habe Äpfel gekauft", "I bought apples", "I bought some apples", (2, 4, 4)),
    Instance(1, "nichts", "", "nothing", ()),
]


def test_a_line_has_what_simuleval_writes(tmp_path):
    write_instances(tmp_path / "new" / "instances.log", SENTENCES)
    lines = (tmp_path / "new" / "instances.log").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {
        "index": 0,
        "prediction": "I bought apples",
        "delays": [2, 4, 4],
        "elapsed": [0, 0, 0],
        "prediction_length": 3,
        "reference": "I bought some apples",
        "source": "ich habe Äpfel gekauft",
        "source_length": 4,
    }
    assert json.loads(lines[1])["delays"] == []
    assert len(lines) == 2


def test_reading_gives_back_what_was_written(tmp_path):
    write_instances(tmp_path / "instances.log", SENTENCES)
    assert read_instances(tmp_path / "instances.log") == SENTENCES


def test_of_two_sentences_with_one_index_the_later_counts(tmp_path):
    again = Instance(0, "a b", "c", "c", (1,))
    write_instances(tmp_path / "instances.log", [*SENTENCES, again])
    assert read_instances(tmp_path / "instances.log") == [again, SENTENCES[1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delays": [1]}, "got 1 delays for 3 predicted words in line 1 of .*instances.log, expected one per word"),
        ({"delays": ["x"] * 3}, "got delays missing or of another kind in line 1"),
        ({"delays": None}, "got delays missing or of another kind in line 1"),
        ({"source": ["samplerate: 16000"]}, "got source missing.*text-to-text"),
        ({"prediction": None, "index": "a"}, "got index, prediction missing"),
    ],
)
def test_faults_are_named(tmp_path, change, message):
    (tmp_path / "instances.log").write_text(json.dumps(SENTENCES[0].row() | change))
    with pytest.raises(ValueError, match=message):
        read_instances(tmp_path / "instances.log")


def test_absent_and_empty_logs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"read_instances: got .*absent.log, which cannot be read"):
        read_instances(tmp_path / "absent.log")
    (tmp_path / "empty.log").write_text("\n")
    with pytest.raises(ValueError, match=r"empty.log, which is empty, expected one sentence per line"):
        read_instances(tmp_path / "empty.log")
