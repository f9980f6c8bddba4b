"""Classifiers under PyTorch's own FLOP counter, trained as by PEFT, whose configuration lists heads of other models
too."""

import pytest

from flopsd.core.architecture import flop, read_model, training_from
from flopsd.core.declared_facts import facts_from
from flopsd.integrations.describe_model import describe
from tests.support.architectures import assumed
from tests.train.families import BATCH, FAMILIES, LENGTH, RANK, build, flop_counter
from tests.train.pytorch import torch

pytestmark = [pytest.mark.training("transformers", "peft"), pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("task", ["SEQ_CLS", "TOKEN_CLS"])
@pytest.mark.parametrize("name", ["llama", "bert", "roberta", "electra", "distilbert", "modernbert"])
def test_a_classifier_trained_together_with_adapters_is_counted(name: str, task: str) -> None:
    import peft
    import transformers

    kind = {"SEQ_CLS": "AutoModelForSequenceClassification", "TOKEN_CLS": "AutoModelForTokenClassification"}[task]
    config = transformers.AutoConfig.for_model(name, **{**FAMILIES[name][1], "pad_token_id": 0})
    base = getattr(transformers, kind).from_config(config, attn_implementation="eager")
    adapters = peft.LoraConfig(r=RANK, target_modules=FAMILIES[name][2], task_type=task)
    model = peft.get_peft_model(base, adapters).train()
    facts = facts_from({key: value for key, value in describe(model, None).items() if value is not None})
    work = {"tokens": BATCH * LENGTH, "sequences": BATCH, "square_pairs": BATCH * LENGTH**2, "padding_tokens": 0}
    with flop_counter() as counter:
        model(input_ids=torch.randint(1, 100, (BATCH, LENGTH))).logits.sum().backward()
    ours = flop(read_model(facts["model_config"]), work, training_from(facts))
    assert ours.executed.computed == counter.get_total_flops()
    assert "the process" not in assumed(ours)


def test_adapters_on_some_layers_are_declared_by_the_shortest_unique_paths() -> None:
    import peft

    adapters = peft.LoraConfig(r=RANK, target_modules=["q_proj", "v_proj"], layers_to_transform=[2, 3])
    model = peft.get_peft_model(build("llama"), adapters).train()
    facts = facts_from({key: value for key, value in describe(model, None).items() if value is not None})
    names = ["2.self_attn.q_proj", "2.self_attn.v_proj", "3.self_attn.q_proj", "3.self_attn.v_proj"]
    assert facts["lora"]["target_modules"] == names
    work = {"tokens": BATCH * LENGTH, "sequences": BATCH, "square_pairs": BATCH * LENGTH**2, "padding_tokens": 0}
    with flop_counter() as counter:
        model(input_ids=torch.randint(1, 100, (BATCH, LENGTH))).logits.sum().backward()
    assert flop(read_model(facts["model_config"]), work, training_from(facts)).executed.computed == (
        counter.get_total_flops()
    )
