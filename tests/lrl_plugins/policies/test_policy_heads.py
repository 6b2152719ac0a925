import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lrl_plugins.policies.heads import hidden_scale, output_head

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 11}
SIZES |= {"num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
EXAMPLE = {"input_ids": torch.tensor([[3, 4, 5]])}


def made(model_type, **entries):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**SIZES, **entries})).eval()


@pytest.mark.parametrize(
    ("model", "expected"),
    [(made("cohere", logit_scale=0.0625), 0.0625), (made("granite", logits_scaling=8.0), 0.125), (made("llama"), 1.0)],
    ids=["cohere", "granite", "llama"],
)
def test_scale_of_known_models(model, expected):
    assert hidden_scale(model, model.base_model, EXAMPLE, 11, "test") == expected


def test_a_bias_of_the_output_layer_is_part_of_the_head_and_extra_rows_are_not():
    model = made("phi", initializer_range=0.3)
    torch.nn.init.normal_(model.lm_head.bias)
    hidden = model.base_model(**EXAMPLE).last_hidden_state
    torch.testing.assert_close(output_head(model, 9).logits(hidden[0]), model(**EXAMPLE).logits[0, :, :9])


def test_a_model_with_more_behind_its_states_is_refused():
    model = made("bert", is_decoder=True)
    with pytest.raises(ValueError, match="BertLMHeadModel"):
        hidden_scale(model, model.base_model, EXAMPLE, 11, "test")
