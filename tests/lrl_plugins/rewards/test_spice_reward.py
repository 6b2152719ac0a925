"""SPICE with a stand-in for its Java program: the real one needs models that have to be downloaded."""

import copy
import pickle
import stat
import sys
import textwrap
from dataclasses import replace

import pytest
import torch

from lrl_core.registry import PluginError
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout
from lrl_plugins.rewards.spice import SPICE

torch.set_num_threads(1)
ROLLOUT = example_rollout()

# The score is the share of the first reference's words that were said; "odd" has none; "die" ends the program.
STAND_IN = """
    import json, pathlib, sys, time
    asked = json.load(open(sys.argv[4]))
    with open({log!r}, "a") as log:
        log.write(f"{{len(asked)}} {{sys.argv[1:4]}} {{sys.argv[5:7]}}\\n")
    if any(row["test"] == "die" for row in asked):
        sys.exit("it hurts")
    if any(row["test"] == "slow" for row in asked):
        time.sleep(60)
    def f(row):
        wanted = row["refs"][0].split()
        return "NaN" if row["test"] == "odd" else len(set(wanted) & set(row["test"].split())) / len(wanted)
    answers = [{{"image_id": row["image_id"], "scores": {{"All": {{"pr": 0, "re": 0, "f": f(row)}}}}}} for row in asked]
    pathlib.Path(sys.argv[sys.argv.index("-out") + 1]).write_text(json.dumps(answers[::-1]))
"""


@pytest.fixture
def stand_in(tmp_path):
    """Makes a SPICE whose Java is a script, and gives it with what the script has noted."""
    java, log, program = tmp_path / "java", tmp_path / "log", tmp_path / "spice-1.0.jar"
    java.write_text(f"#!{sys.executable}\n{textwrap.dedent(STAND_IN).format(log=str(log))}")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "stanford-corenlp-3.6.0.jar").touch()
    program.touch()

    def make(**arguments):
        reward = SPICE(java=str(java), program=str(program), **arguments)
        return reward, lambda: log.read_text().splitlines() if log.exists() else []

    return make


def saying(*texts, references=(("a cat sits",),)):
    one = ROLLOUT.select(torch.zeros(len(texts), dtype=torch.long))
    prompts = replace(one.prompts, references=tuple(references) * (len(texts) // len(references)))
    return replace(one, texts=texts, prompts=prompts)


def test_conforms(stand_in):
    check_reward(lambda: stand_in()[0])


def test_a_batch_is_one_start_and_equal_captions_are_judged_once(stand_in):
    spice, noted = stand_in(memory="3G")
    signal = judge(spice, saying("A cat.", "a cat", "a dog", "", "A cat sits!"))
    assert signal.total.tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3, 0, 1])
    assert signal.parts.keys() == {"SPICE"}
    assert len(noted()) == 1
    assert noted()[0].startswith("3 ['-Xmx3G', '-jar', ")
    assert judge(spice, saying("", "")).total.tolist() == [0, 0]
    assert len(noted()) == 1  # nothing said needs no program


def test_what_has_no_number_or_no_references_cannot_be_judged(stand_in):
    spice, _ = stand_in()
    got = judge(spice, saying("odd", "a", "a", references=(("a",), (), ("!",)))).total
    assert got.isnan().tolist() == [True, True, True]


def test_a_cache_folder_is_handed_on(stand_in, tmp_path):
    spice, noted = stand_in(cache=str(tmp_path / "parsed"))
    judge(spice, saying("a"))
    assert noted()[0].endswith(f"['-cache', '{tmp_path / 'parsed'}']")
    assert (tmp_path / "parsed").is_dir()


def test_a_failure_is_an_error_and_never_a_score(stand_in):
    with pytest.raises(PluginError, match=r"SPICE.*status 1.*it hurts"):
        judge(stand_in()[0], saying("a", "die"))
    with pytest.raises(PluginError, match="within 1 seconds"):
        judge(stand_in(time_limit=1)[0], saying("slow"))


def test_copies_score_alike(stand_in):
    spice, _ = stand_in()
    before = judge(spice, saying("a cat")).total
    for other in (copy.deepcopy(spice), pickle.loads(pickle.dumps(spice))):
        assert judge(other, saying("a cat")).total.tolist() == before.tolist()


def test_the_error_names_what_is_missing(stand_in, tmp_path):
    with pytest.raises(ValueError, match=r"SPICE.*no-such-java.*Java runtime"):
        SPICE(java="no-such-java").check(None)
    spice, _ = stand_in()
    (tmp_path / "lib" / "stanford-corenlp-3.6.0.jar").unlink()
    with pytest.raises(ValueError, match=r"SPICE.*stanford-corenlp-3.6.0.jar.*Download"):
        spice.check(None)
    with pytest.raises(PluginError, match=r"stanford-corenlp-3.6.0.jar.*Download"):
        judge(spice, ROLLOUT)


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="expected"):
        SPICE(time_limit=0)
