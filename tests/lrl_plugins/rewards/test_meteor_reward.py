"""METEOR: the numbers by the real program, its life by a stand-in that dies, stalls and babbles on demand."""

import copy
import gc
import gzip
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lrl_core.registry import PluginError
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout
from lrl_core.tokenizer import words
from lrl_plugins.rewards.meteor import METEOR

torch.set_num_threads(1)
ROLLOUT = example_rollout()
SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "coco_captions_val2017"

# Says 0.5 for everything, and notes every start and every question.
STAND_IN = """
    import os, pathlib, sys, time
    log = pathlib.Path({log!r})
    def note(what):
        with log.open("a") as file:
            file.write(what + "\\n")
    note(f"start {{os.getpid()}}")
    if {broken!r}:
        sys.exit("out of luck")
    for line in sys.stdin:
        said = line.split("|||")[-1].strip()
        if line.startswith("EVAL"):
            print("0.5\\n0.5", flush=True)
            continue
        note(said)
        if said == "always" or (said == "once" and log.read_text().count("once") == 1):
            sys.exit("it hurts")
        if said == "slow":
            time.sleep(60)
        print("babble" if said == "babble" else "1 2 3", flush=True)
"""


@pytest.fixture
def stand_in(tmp_path):
    """Makes a METEOR whose Java is a script, and gives it with what the script has noted."""

    def make(broken=False, **arguments):
        java, log = tmp_path / "java", tmp_path / "log"
        code = textwrap.dedent(STAND_IN).format(log=str(log), broken=broken)
        java.write_text(f"#!{sys.executable}\n{code}")
        java.chmod(java.stat().st_mode | stat.S_IXUSR)
        return METEOR(java=str(java), **arguments), lambda: log.read_text().splitlines() if log.exists() else []

    return make


def saying(*texts):
    one = ROLLOUT.select(torch.zeros(len(texts), dtype=torch.long))
    return replace(one, texts=texts)


def starts(noted):
    return [int(line.split()[1]) for line in noted if line.startswith("start")]


def ended(process):
    """Whether the process is gone, after a moment at most."""
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(shutil.which("java") is None, reason="needs a Java runtime")
def test_equals_the_published_scores_of_coco_captions():
    file = SHARED / "metric_check_human1000.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"needs shared/data/coco_captions_val2017/{file.name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    # Where the Java tokenizer and ours agree, the scores by the metric's own wrapper must be met.
    same = [r for r in rows if all(words(t) == t.split() for t in (r["tok_candidate"], *r["tok_references"]))][:60]
    assert len(same) == 60
    one = ROLLOUT.select(torch.zeros(60, dtype=torch.long))
    prompts = replace(one.prompts, references=tuple(tuple(r["tok_references"]) for r in same))
    signal = judge(METEOR(), replace(one, prompts=prompts, texts=tuple(r["tok_candidate"] for r in same)))
    assert signal.total.tolist() == pytest.approx([r["scores"]["METEOR"] for r in same], abs=1e-6)
    assert signal.parts.keys() == {"METEOR"}


def test_conforms(stand_in):
    check_reward(lambda: stand_in()[0])


def test_starts_at_first_use_and_stays_alive(stand_in):
    meteor, noted = stand_in()
    assert noted() == []
    for _ in range(3):
        assert judge(meteor, saying("a", "a", "b")).total.tolist() == [0.5] * 3
    assert len(starts(noted())) == 1
    assert noted().count("a") == 3  # once per batch: equal questions are asked once


def test_ends_with_its_owner(stand_in):
    meteor, noted = stand_in()
    judge(meteor, saying("a"))
    process = starts(noted())[0]
    del meteor
    gc.collect()
    assert ended(process)


def test_ends_with_python(stand_in):
    meteor, noted = stand_in()
    code = (
        "from pathlib import Path\n"
        "from lrl_plugins.rewards.java import Conversation\n"
        f"kept = Conversation('METEOR', [{meteor.java!r}], Path(), 60)\n"
        "kept.say('SCORE')\n"
        "print(kept.hear())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "1 2 3"
    assert ended(starts(noted())[0])


def test_is_started_again_if_it_died(stand_in):
    meteor, noted = stand_in()
    assert judge(meteor, saying("a", "once", "b")).total.tolist() == [0.5] * 3
    assert len(starts(noted())) == 2
    os.kill(starts(noted())[-1], 9)
    assert judge(meteor, saying("c")).total.tolist() == [0.5]
    assert len(starts(noted())) == 3


def test_what_it_dies_of_twice_cannot_be_judged(stand_in):
    meteor, noted = stand_in()
    with pytest.warns(UserWarning, match="cannot judge 'always'.*it hurts"):
        got = judge(meteor, saying("a", "always", "b")).total
    assert got.isnan().tolist() == [False, True, False]
    assert len(starts(noted())) == 3


def test_a_program_that_cannot_start_is_an_error_and_never_a_score(stand_in):
    meteor, _ = stand_in(broken=True)
    with pytest.raises(PluginError, match=r"METEOR.*out of luck"):
        judge(meteor, saying("a"))


def test_what_takes_too_long_cannot_be_judged(stand_in):
    meteor, noted = stand_in(time_limit=2)
    with pytest.warns(UserWarning, match="within 2 seconds"):
        got = judge(meteor, saying("slow", "a")).total
    assert got.isnan().tolist() == [True, False]
    assert all(ended(process) for process in starts(noted())[:-1])


def test_nothing_said_is_judged_and_no_references_are_not(stand_in):
    meteor, noted = stand_in()
    said = saying("", "a", "a")
    prompts = replace(said.prompts, references=(("a",), (), ("!",)))
    got = judge(meteor, replace(said, prompts=prompts)).total
    assert got.isnan().tolist() == [False, True, True]
    assert got[0] == 0
    assert noted() == []  # nothing of this needs the program


def test_copies_and_pickles_bring_no_process(stand_in):
    meteor, noted = stand_in()
    judge(meteor, saying("a"))
    assert meteor.state_dict() == {}
    for other in (copy.deepcopy(meteor), pickle.loads(pickle.dumps(meteor))):
        assert judge(other, saying("a")).total.tolist() == [0.5]
    assert len(set(starts(noted()))) == 3
    assert judge(meteor, saying("a")).total.tolist() == [0.5]
    assert len(starts(noted())) == 3  # the first is still its own


def test_the_error_names_java_where_there_is_none():
    meteor = METEOR(java="no-such-java")
    with pytest.raises(ValueError, match=r"METEOR.*no-such-java.*Java runtime"):
        meteor.check(None)
    with pytest.raises(PluginError, match=r"no-such-java.*Java runtime"):
        judge(meteor, ROLLOUT)


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="expected"):
        METEOR(time_limit=0)
