import builtins
import json

import pytest

from lrl_plugins.tasks.text.hub import HubDataset


@pytest.fixture
def folder(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for split, count in (("train", 3), ("validation", 2)):
        rows = [{"document": f"long {split} {i}", "summary": [f"short {i}", "brief"]} for i in range(count)]
        (tmp_path / "data" / f"{split}.jsonl").parent.mkdir(exist_ok=True)
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "data")


def test_a_data_set_of_the_library(folder):
    source = HubDataset(folder, prompt_field="document", references_fields=["summary"], train="train[:2]", test=None)
    splits = source.splits()
    assert {split: len(examples) for split, examples in splits.items()} == {"train": 2, "val": 2}
    example = splits["val"][1]
    assert (example.id, example.prompt, example.references) == (
        "validation-1",
        "long validation 1",
        ("short 1", "brief"),
    )
    with pytest.raises(ValueError, match=r"HubDataset: got .*split 'test'.*cannot load.*Correct the names"):
        HubDataset(folder, prompt_field="document", references_fields=["summary"]).splits()


def test_without_the_library_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install datasets"):
        HubDataset("someone/something").splits()
