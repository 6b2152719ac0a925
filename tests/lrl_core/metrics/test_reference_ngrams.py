import copy
import pickle
import random
import threading

import numpy as np
import pytest

from lrl_core.metrics.ngram_batch import NgramBatch, Words
from lrl_core.metrics.ngrams import ngram_counts
from lrl_core.metrics.reference_ngrams import OneAtATime, ReferenceNgrams

DRAW = random.Random(0)
PROMPTS = {key: [DRAW.choices("abcd", k=DRAW.randrange(9)) for _ in range(DRAW.randrange(1, 5))] for key in range(30)}
CANDIDATES = [DRAW.choices("abcde", k=DRAW.randrange(9)) for _ in range(80)]
KEYS = [DRAW.randrange(30) for _ in CANDIDATES]


def shared(references, n):
    """What is shared, by candidate and reference and n-gram: how often it is in the candidate and in the reference."""
    pairs = references.pairs(KEYS)
    batch = NgramBatch.of(CANDIDATES, n, references.words)
    flat = [word for candidate in CANDIDATES for word in [*candidate, None]]
    result = {}
    for order, own in enumerate(references.shared(batch, pairs)):
        for gram, pair, times in zip(own.gram.tolist(), own.pair.tolist(), own.times.tolist(), strict=True):
            at = own.at[gram]
            candidate = int(pairs.candidate[pair])
            assert candidate == batch.sentence[at]
            if said := int(batch.times[order, at]):
                which = int(pair - pairs.first[candidate])
                result[candidate, which, tuple(flat[at : at + order + 1])] = (said, times)
    return result


def test_what_is_shared_equals_counters():
    n, references = 3, ReferenceNgrams(3, Words(a=0))
    references.add([*KEYS[:10], *KEYS[:5]], PROMPTS.__getitem__)
    references.add(KEYS, PROMPTS.__getitem__)
    expected = {}
    for i, (candidate, key) in enumerate(zip(CANDIDATES, KEYS, strict=True)):
        for which, reference in enumerate(PROMPTS[key]):
            for said, wanted in zip(ngram_counts(candidate, n), ngram_counts(reference, n), strict=True):
                both = said.keys() & wanted.keys()
                expected.update({(i, which, ngram): (said[ngram], wanted[ngram]) for ngram in both})
    assert shared(references, n) == expected
    assert len(expected) > 250


def test_pairs_put_each_candidate_beside_its_references():
    references = ReferenceNgrams(1, Words())
    references.add(KEYS, PROMPTS.__getitem__)
    pairs = references.pairs(KEYS)
    assert np.bincount(pairs.candidate, minlength=len(KEYS)).tolist() == [len(PROMPTS[key]) for key in KEYS]
    lengths = [len(reference) for key in KEYS for reference in PROMPTS[key]]
    assert references.lengths[pairs.reference].tolist() == lengths


def test_references_are_counted_once():
    asked = []
    references = ReferenceNgrams(2, Words())
    for keys in ([1, 2, 1], [2, 1], [2, 3]):
        references.add(keys, lambda key: asked.append(key) or PROMPTS[key])
    assert asked == [1, 2, 3]
    assert references.add([3, 1], PROMPTS.__getitem__) is None


def test_what_is_kept_is_measured_in_ngrams():
    references = ReferenceNgrams(2, Words())
    assert references.room_for(["x"], limit=1)
    references.add(["x"], lambda key: [["a", "b", "a", "b"], ["a"]])
    assert len(references) == 2 + 2 + 1  # a b ab ba, and a
    assert references.room_for(["x"], limit=5)
    assert not references.room_for(["x", "y"], limit=5)
    assert references.room_for(["x", "y"], limit=6)


def test_a_prompt_without_references_is_refused():
    with pytest.raises(ValueError, match="without references; expected at least one"):
        ReferenceNgrams(2, Words()).add(["x"], lambda key: [])


def test_one_at_a_time_lets_the_second_wait_and_a_copy_through():
    turn, order, inside = OneAtATime(), [], threading.Event()

    def second():
        inside.wait()
        with turn:
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with turn:
        inside.set()
        thread.join(0.05)
        for other in (copy.deepcopy(turn), pickle.loads(pickle.dumps(turn))):
            with other:
                order.append("copy")
        order.append("first")
    thread.join()
    assert order == ["copy", "copy", "first", "second"]
