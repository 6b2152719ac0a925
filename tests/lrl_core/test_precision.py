import pytest
import torch

from lrl_core.precision import cpu_has_bf16, has_bf16, is_emulated, reason, warning

PROCESSORS = {
    "Intel with bf16": (
        "processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_bf16 amx_tile\nbogomips : 5000\n",
        True,
    ),
    "AMD with bf16": ("flags\t\t: fpu avx2 avx512_bf16\n", True),
    "Intel without": ("model name : bf16 in its name\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", False),
    "ARM with bf16": ("Features\t: fp asimd i8mm bf16 sve\n", True),
    "ARM without": ("Features\t: fp asimd sve svebf16x\n", False),
    "nothing said": ("processor\t: 0\n", None),
}


@pytest.mark.parametrize("case", PROCESSORS)
def test_processors(tmp_path, case):
    text, units = PROCESSORS[case]
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_has_bf16(tmp_path / "cpuinfo") is units


def test_a_system_that_does_not_say(tmp_path):
    assert cpu_has_bf16(tmp_path / "nowhere") is None
    assert has_bf16(torch.device("meta")) is None


def test_this_processor_is_what_torch_knows_of_it():
    known = getattr(torch.cpu, "get_capabilities", None)
    if known is None or has_bf16(torch.device("cpu")) is None or known().get("architecture") != "x86_64":
        pytest.skip("this torch does not say, or it is another kind of processor")
    assert has_bf16(torch.device("cpu")) == (known()["avx512_bf16"] or known()["amx_bf16"])


def test_the_line_says_what_and_why():
    assert reason("32-true", "cpu", False) == "precision: 32-true (the default; this CPU has no bf16 units)"
    assert reason("bf16-mixed", "cuda", True).startswith("precision: bf16-mixed (as the recipe or the command asks; ")
    assert reason("bf16-mixed", "cuda", True).endswith("this GPU has bf16 units)")
    assert reason("32-true", "mps", None) == "precision: 32-true (the default)"


@pytest.mark.parametrize(
    ("precision", "units", "slow"),
    [
        ("bf16-mixed", False, True),
        ("bf16-true", False, True),
        ("bf16-mixed", True, False),
        ("bf16-mixed", None, False),
        ("32-true", False, False),
        ("16-mixed", False, False),
    ],
)
def test_only_bf16_without_units_is_emulated(precision, units, slow):
    assert is_emulated(precision, units) is slow


def test_the_warning_says_what_to_do():
    text = warning("bf16-mixed", "cpu")
    assert "this CPU has no bf16 units" in text
    assert "many times slower than 32-true" in text
    assert "Leave trainer.precision out" in text
