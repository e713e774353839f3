"""Relatives and strangers, told apart without loading either."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import tiny_llama, tiny_tokenizer

from demur.checkpoint import open_checkpoint
from demur.errors import ModelError
from demur.models.family import Family, check_family, compare_family
from demur.models.lineage import lineage_of
from demur.models.similarity import BLOCK, BLOCKS, sample, similarity
from demur.models.vocabulary import Vocabulary, compare_vocabularies

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def recipient(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("family") / "recipient")


def relative(
    source: Path, folder: Path, change: Callable[[Tensors], Tensors] | None = None, **config: Any
) -> Path:
    """Save a model whose weights moved a little away from those of `source`."""
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(source / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    for name, tensor in tensors.items():
        noise = torch.randn(tensor.shape, generator=generator) * tensor.std() * 0.05
        tensors[name] = tensor + noise if tensor.dim() > 1 else tensor
    tensors = change(tensors) if change else tensors
    save_file({name: one.contiguous() for name, one in tensors.items()}, folder / SINGLE)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    return folder


SINGLE = "model.safetensors"


def subjects(family: Family, *, bridged: bool) -> set[str]:
    return {one.subject for one in family.differences if one.bridged is bridged}


def test_a_relative_is_one(recipient, tmp_path):
    family = check_family(recipient, relative(recipient, tmp_path / "donor"))
    assert family.related and not family.differences
    assert family.architecture == "LlamaForCausalLM"
    assert family.similarity is not None
    assert family.similarity.matrices == 14
    assert 0.99 < family.similarity.lowest <= family.similarity.median < 1
    assert not family.similarity.identical


def test_strangers_of_the_same_shapes_are_told_by_their_weights(recipient, tmp_path):
    donor = tiny_llama(tmp_path / "donor", seed=1)
    family = compare_family(recipient, donor)
    assert not family.related and subjects(family, bridged=False) == {"weights"}
    assert family.similarity is not None and abs(family.similarity.median) < 0.1
    with pytest.raises(
        ModelError, match=r"not relatives: .*median cosine .* 14 matrices is -?0\.0"
    ):
        check_family(recipient, donor)


def test_the_same_model_is_said_to_be_the_same(recipient):
    family = check_family(recipient, recipient)
    assert family.bridged == (
        "No sampled weight differs: recipient and donor may be one and the same.",
    )


def test_a_missing_layer_is_a_barrier(recipient, tmp_path):
    def without_a_layer(tensors: Tensors) -> Tensors:
        return {name: one for name, one in tensors.items() if "layers.1." not in name}

    donor = relative(recipient, tmp_path / "donor", without_a_layer)
    family = compare_family(recipient, donor)
    assert family.barriers == (
        "The donor lacks 9 of 18 tensors of layers, such as layers.1.input_layernorm.weight.",
    )
    shorter = relative(recipient, tmp_path / "short", without_a_layer, num_hidden_layers=1)
    with pytest.raises(ModelError, match=r"num_hidden_layers is 2 in the recipient and 1 in the"):
        check_family(recipient, shorter)


def test_other_widths_and_heads_are_barriers(recipient, tmp_path):
    wide = tiny_llama(tmp_path / "wide", intermediate_size=96)
    family = compare_family(recipient, wide)
    assert subjects(family, bridged=False) == {"intermediate_size", "shapes", "weights"}
    heads = relative(recipient, tmp_path / "heads", num_attention_heads=8, head_dim=8)
    assert "num_attention_heads" in subjects(compare_family(recipient, heads), bridged=False)


def test_a_padded_vocabulary_is_bridged(recipient, tmp_path):
    def padded(tensors: Tensors) -> Tensors:
        name = "model.embed_tokens.weight"
        return {**tensors, name: torch.cat([tensors[name], torch.zeros(48, 32)])}

    rows = len(tiny_tokenizer())
    donor = relative(recipient, tmp_path / "donor", padded, vocab_size=rows + 48)
    family = check_family(recipient, donor)
    assert family.bridged == (
        f"The recipient has {rows} rows of embeddings for {rows} tokens and the donor {rows + 48} "
        f"for {rows}; they are not grafted.",
    )


def test_added_tokens_and_templates_are_bridged(recipient, tmp_path):
    donor = relative(recipient, tmp_path / "donor")
    tokenizer = tiny_tokenizer(chat_template=None)
    tokenizer.add_tokens(["<|tool|>", "<|end_of_tool|>"])
    for name in ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        (donor / name).unlink(missing_ok=True)
    tokenizer.save_pretrained(donor)
    family = check_family(recipient, donor)
    assert subjects(family, bridged=True) == {
        "vocabulary", "tokens without rows", "chat template",
    }  # fmt: skip
    text = " ".join(family.bridged)
    assert "The donor has 2 tokens that the other lacks, such as '<|tool|>'" in text
    assert "2 tokens beyond its" in text and "the donor has none" in text


def test_another_vocabulary_is_a_barrier(recipient, tmp_path):
    from tokenizers import Tokenizer

    donor = relative(recipient, tmp_path / "donor")
    saved = json.loads((donor / "tokenizer.json").read_text())
    vocabulary = saved["model"]["vocab"]
    plain = [token for token, number in vocabulary.items() if number > 2]
    numbers = [vocabulary[token] for token in plain]
    vocabulary.update(zip(plain, np.roll(numbers, 7).tolist(), strict=True))
    Tokenizer.from_str(json.dumps(saved)).save(str(donor / "tokenizer.json"))
    family = compare_family(recipient, donor)
    assert subjects(family, bridged=False) == {"vocabulary"}
    assert "Only 3 of the" in family.barriers[0]


def test_vocabularies_are_compared_token_by_token():
    first = Vocabulary({"a": 0, "b": 1, "c": 2}, None)
    second = Vocabulary({"a": 0, "b": 1, "d": 2, "e": 3}, None)
    found = compare_vocabularies(first, second)
    assert (found.same, found.moved, found.agree) == (2, (2,), False)
    assert (found.only_first, found.only_second) == (("c",), ("d", "e"))


def test_dtype_head_and_positions_are_bridged(recipient, tmp_path):
    def untied(tensors: Tensors) -> Tensors:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 0.01
        return {name: one.bfloat16() for name, one in tensors.items()}

    rope = {"rope_type": "default", "rope_theta": 500000.0}
    donor = relative(
        recipient, tmp_path / "donor", untied, tie_word_embeddings=False, rope_parameters=rope
    )
    family = check_family(recipient, donor)
    assert subjects(family, bridged=True) == {"dtype", "tied head", "rope_parameters"}
    assert "stored in F32 and the donor in BF16" in " ".join(family.bridged)
    assert family.similarity is not None and family.similarity.median > 0.99


def test_names_with_and_without_the_prefix_are_the_same(recipient, tmp_path):
    def bare(tensors: Tensors) -> Tensors:
        return {name.removeprefix("model."): one for name, one in tensors.items()}

    family = check_family(recipient, relative(recipient, tmp_path / "donor", bare))
    assert not family.differences and family.similarity is not None
    assert family.similarity.matrices == 14


def test_another_activation_or_architecture_is_a_barrier(recipient, tmp_path):
    other = relative(recipient, tmp_path / "gelu", hidden_act="gelu")
    assert subjects(compare_family(recipient, other), bridged=False) == {"hidden_act"}
    kin = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    other = relative(recipient, tmp_path / "mistral", **kin)
    assert "architecture" in subjects(compare_family(recipient, other), bridged=False)


def test_distant_relatives_are_said_to_be(recipient, tmp_path):
    def drifted(tensors: Tensors) -> Tensors:
        generator = torch.Generator().manual_seed(2)
        return {
            name: one + torch.randn(one.shape, generator=generator) * one.std()
            if one.dim() > 1
            else one
            for name, one in tensors.items()
        }

    family = check_family(recipient, relative(recipient, tmp_path / "donor", drifted))
    assert "distant relatives: the median cosine" in family.bridged[0]


def test_a_base_must_be_a_relative_of_both(recipient, tmp_path):
    donor = relative(recipient, tmp_path / "donor")
    family = check_family(recipient, donor, base=recipient)
    assert family.recipient_base is not None and family.recipient_base.identical
    assert family.donor_base is not None and family.donor_base.median > 0.99
    with pytest.raises(ModelError, match="weights of recipient and base"):
        check_family(recipient, donor, base=tiny_llama(tmp_path / "stranger", seed=4))


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8"])
def test_quantised_models_are_refused(recipient, tmp_path, method):
    donor = relative(recipient, tmp_path / "donor", quantization_config={"quant_method": method})
    with pytest.raises(ModelError, match=f"quantised \\({method}\\).*unquantised model"):
        check_family(recipient, donor)


def test_quantised_weights_are_refused_where_the_config_is_silent(recipient, tmp_path):
    def packed(tensors: Tensors) -> Tensors:
        name = "model.layers.0.mlp.up_proj.weight"
        return {**tensors, name: tensors[name].to(torch.int8)}

    donor = relative(recipient, tmp_path / "donor", packed)
    with pytest.raises(ModelError, match=r"up_proj\.weight is stored as I8"):
        check_family(recipient, donor)


def test_samples_are_blocks_of_the_tensor(tmp_path):
    values = torch.arange(3 * BLOCKS * BLOCK).reshape(3, -1).float()
    tensors = {"a": values, "half": values.to(torch.bfloat16), "small": values[:1, :9].clone()}
    save_file(tensors, tmp_path / SINGLE)
    checkpoint = open_checkpoint(tmp_path)
    found = sample(checkpoint.tensor("a"))
    assert len(found) == BLOCKS * BLOCK
    assert found[:3].tolist() == [0, 1, 2] and found[-1] == values[-1, -1]
    wide = sample(checkpoint.tensor("half"))
    assert np.array_equal(wide, values.bfloat16().double().flatten().numpy()[found.astype(int)])
    assert sample(checkpoint.tensor("small")).tolist() == list(range(9))
    found = similarity(checkpoint, checkpoint, {"a": "half"})
    assert found is not None and found.median == pytest.approx(1, abs=1e-4)
    assert not found.identical
    assert similarity(checkpoint, checkpoint, {}) is None


@pytest.mark.parametrize(
    ("card", "config", "bases", "source"),
    [
        ("---\nbase_model: org/base\nbase_model_relation: finetune\n---\n", {}, ("org/base",), 1),
        ("---\nbase_model: [org/one, org/two, org/one]\n---\nText", {}, ("org/one", "org/two"), 1),
        ("No front matter", {"_name_or_path": "org/base"}, ("org/base",), 2),
        ("---\nbase_model: [\n---\n", {}, (), 0),
        ("---\nbase_model: /home/someone/model\n---\n", {"_name_or_path": "./here"}, (), 0),
        (None, {"_name_or_path": ""}, (), 0),
    ],
)
def test_lineage_is_what_the_card_or_the_config_names(tmp_path, card, config, bases, source):
    (tmp_path / "config.json").write_text(json.dumps(config))
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    found = lineage_of(tmp_path)
    assert found.bases == bases
    assert found.source == (None, "README.md", "config.json")[source]
    assert found.relation == ("finetune" if card and "finetune" in card else None)


def test_a_folder_may_be_the_base_but_not_of_itself(recipient, tmp_path):
    donor = relative(recipient, tmp_path / "donor", _name_or_path=str(recipient))
    assert lineage_of(donor).bases == (str(recipient),)
    own = relative(recipient, tmp_path / "own", _name_or_path=str(tmp_path / "own"))
    assert lineage_of(own).bases == ()
