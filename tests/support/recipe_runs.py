"""Running the shipped recipes on tiny made-up files: for the tests of recipes and of what holds for all of them."""

import json
import re
from pathlib import Path

import numpy as np
import yaml

from lrl_core.commands import recipes, train

RECIPES = {name: path for name, path in recipes.shipped().items() if not recipes.is_preset(name)}
COLOURS = ("red", "green", "blue", "black", "white")


def captions(i: int) -> list[str]:
    """Three ways to say what picture i shows."""
    one, two = COLOURS[i % 5], COLOURS[i // 5 % 5]
    return [f"a {one} circle above a {two} box", f"a {two} box below a {one} circle", f"the circle is {one}"]


TWO_BATCHES = [
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.max_epochs=1",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    "--data.init_args.batch_size=2",
]


def write_data(folder: Path) -> Path:
    """The files that the recipes' data sections ask for, tiny."""
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    images = [
        {"filename": f"{i}.jpg", "cocoid": i, "split": split, "sentences": [{"raw": c} for c in captions(i)]}
        for i, split in enumerate(splits)
    ]
    (folder / "karpathy.json").write_text(json.dumps({"images": images}))
    generator = np.random.default_rng(0)
    regions = {str(i): generator.normal(size=(3 + i % 2, 2048)).astype("float32") for i in range(len(splits))}
    np.savez(folder / "regions.npz", **regions)
    rows = [{"i": i, "captions": captions(i), "split": split} for i, split in enumerate(splits)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.savez(folder / "images.npz", images=generator.integers(0, 256, (len(splits), 48, 48, 3), dtype=np.uint8))
    texts = [
        {
            "en": [*captions(i), "round and small", f"circle {i}"],
            "mr": f"name[Box {i}], food[red]",
            "refs": captions(i),
            "question": f"what is {i} + 2 ?",
            "answer": f"{i} + 2 = {i + 2} #### {i + 2}",
        }
        for i in range(40)
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    words = " ".join(text for i in range(20) for text in captions(i))
    (folder / "text.txt").write_text(f" = Circles =\n\n {words}\n")
    for side in range(2):
        (folder / f"parallel.{side}").write_text("".join(captions(i)[side] + "\n" for i in range(20)))
    facts = [{"key": colour, "question": f"is it {colour}?"} for colour in COLOURS]
    items = {"items": [f"thing {i}" for i in range(6)], "predicates": facts}
    (folder / "table.json").write_text(json.dumps(items | {"answers": [f"{i:05b}" for i in range(6)]}))
    return folder


def data_options(recipe: Path, data: Path) -> list[str]:
    section = yaml.safe_load(recipe.read_text())["data"]
    arguments = section.get("init_args", {})
    if section["class_path"] == "SyntheticOracle":
        return ["--data.init_args.sentences=8", "--data.init_args.held_out=4"]
    source = arguments.get("source", arguments.get("world", {"class_path": "DrawnScenes"}))
    prefix = "--data.init_args.source.init_args"
    few = [f"{prefix}.train=8", f"{prefix}.val=2", f"{prefix}.test=2"]
    rare = ["--data.init_args.min_count=1"] if "min_count" in arguments else []
    rare += ["--data.init_args.labelled=4"] if arguments.get("labelled") else []
    texts = [f"{prefix}.{split}={data / 'texts.jsonl'}" for split in ("train", "val", "test")]
    pictures = [f"{prefix}.path={data / 'captions.jsonl'}", f"{prefix}.images={data / 'images.npz'}"]
    return {
        "DrawnScenes": few,
        "MadeUpStories": few,
        "MadeUpPreferences": few,
        "Sums": few,
        "WorkedSums": few,
        "MadeUpOpinions": few,
        "KarpathySplit": [
            f"{prefix}.annotations={data / 'karpathy.json'}",
            f"--data.init_args.features.path={data / 'regions.npz'}",
        ],
        "JsonLines": pictures if section["class_path"] == "Captioning" else texts,
        "PlainText": [f"{prefix}.{split}={data / 'text.txt'}" for split in ("train", "val")],
        "Parallel": [
            f"{prefix}.{split}_{side}={data / f'parallel.{i}'}"
            for split in ("train", "val", "test")
            for i, side in enumerate(("prompts", "answers"))
        ],
        "Continuations": [f"{prefix}.{split}={data / 'parallel.0'}" for split in ("train", "val", "test")],
        "AttributeTable": [f"--data.init_args.world.init_args.path={data / 'table.json'}"],
        "SceneWorld": [
            f"--data.init_args.world.init_args.{split}={8 if split == 'train' else 2}"
            for split in ("train", "val", "test")
        ],
    }[source["class_path"]] + rare


def smaller(recipe: Path) -> list[str]:
    """Options that make a large model small, for tests that train it several times."""
    policy = yaml.safe_load(recipe.read_text())["model"].get("policy")
    if policy is None:  # a learner trained alone
        return []
    arguments = policy.get("init_args", {})
    prefix = "--model.policy.init_args"
    options = []
    if policy["class_path"] == "ImageCaptioner" and arguments["decoder"].get("n_embd", 0) > 128:
        tiny = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}
        options.append(f"{prefix}.decoder={json.dumps(tiny)}")
    if policy["class_path"] == "XLinearCaptioner":
        options += [f"{prefix}.hidden=32", f"{prefix}.layers=1", f"{prefix}.heads=2"]
    return options


def followed_metric(recipe: Path) -> str:
    """The held-out number that the recipe's console follows."""
    callbacks = yaml.safe_load(recipe.read_text())["trainer"]["callbacks"]
    console = next(callback for callback in callbacks if callback["class_path"] == "Console")
    return console.get("init_args", {}).get("metric", "val/CIDErD")


def after_its_stages(name: str, data: Path) -> str:
    """The recipe; where it starts from runs of other recipes, a copy that starts from tiny ones."""
    text = RECIPES[name].read_text()
    stages = sorted(set(re.findall(r": runs/(\w+)-(\w+)/version_0", text)))
    if not stages:
        return name
    for task, method in stages:
        folder = data / "stages" / f"{task}-{method}"
        if not folder.exists():
            fit(f"{task}/{method}", data, folder)
        text = text.replace(f"runs/{task}-{method}/version_0", str(folder))
    copy = data / "stages" / f"{name.replace('/', '-')}.yaml"
    copy.write_text(text)
    return str(copy)


def long_enough(recipe: Path) -> list[str]:
    """As many epochs as the policy needs to begin: what learns before it has some to itself."""
    model = yaml.safe_load(recipe.read_text())["model"]
    first = 0 if model.get("warm_up") else model.get("learners_first", 0)
    return [f"--trainer.max_epochs={1 + first}"]


def fit(name: str, data: Path, folder: Path, *options: str) -> Path:
    """Train a recipe for two batches; its folder."""
    arguments = [
        "fit",
        "--config",
        after_its_stages(name, data),
        *data_options(RECIPES[name], data),
        *TWO_BATCHES,
        *long_enough(RECIPES[name]),
        f"--run_dir={folder}",
    ]
    assert train.main([*arguments, *options]) == 0
    return folder
