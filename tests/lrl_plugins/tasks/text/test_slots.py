import pytest

from lrl_plugins.tasks.text.slots import slot_coverage, slots_of, with_placeholders
from lrl_plugins.tasks.text.sources import Example

TABLE = "name[Blue Spice], eatType[coffee shop], customer rating[5 out of 5], familyFriendly[yes], near[Blue Spice Inn]"


def test_slots_are_read_in_order():
    assert slots_of(TABLE)[2:4] == [("customer rating", "5 out of 5"), ("familyFriendly", "yes")]
    assert slots_of("no table") == []


@pytest.mark.parametrize(
    ("said", "share"),
    [
        ("Blue Spice, near Blue Spice Inn, is a family-friendly coffee shop rated 5 out of 5.", 1),
        ("BLUE SPICE is a coffee-shop", 2 / 5),
        ("blue and spice and coffee and shop", 0),
        ("It is not family friendly", 1 / 5),
        ("", 0),
    ],
)
def test_coverage_counts_values_word_for_word(said, share):
    assert slot_coverage(TABLE, said) == pytest.approx(share)


def test_no_slots_no_coverage():
    assert slot_coverage("no table", "nothing") is None


def test_placeholders_stand_for_values_in_prompt_and_references():
    example = Example("1", TABLE, ("Blue Spice is near the blue spice inn.", "Blue Spices"))
    hidden = with_placeholders(example, ["name", "near", "food"])
    assert hidden.prompt.startswith("name[xname], eatType[coffee shop]")
    assert hidden.prompt.endswith("near[xnear]")
    assert hidden.references == ("xname is near the xnear.", "Blue Spices")
    assert with_placeholders(example, []) == example
