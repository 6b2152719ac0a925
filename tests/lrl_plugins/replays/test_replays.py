from lrl_core.testing.parts import check_replay
from lrl_plugins.replays.expert import Expert
from lrl_plugins.replays.fresh import Fresh


def test_fresh_conforms():
    check_replay(Fresh)


def test_expert_conforms_and_samples_nothing():
    check_replay(Expert)
    assert not Expert.samples
