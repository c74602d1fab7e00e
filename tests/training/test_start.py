"""Where a new drafter starts: with the tokens that responses are made of, and with the target's last layers."""

from __future__ import annotations

import torch
from training.training_models import MASK, NUM_LAYERS, VOCAB_SIZE, drafter, sequence, target

from hoarfrost.drafting.vocabulary import offsets_of
from hoarfrost.training.anchors import pack_blocks
from hoarfrost.training.data import TrainingSequence
from hoarfrost.training.initial import start_from_target
from hoarfrost.training.vocabulary import GuessedVocabulary, likeliest_tokens


def test_the_vocabulary_is_that_of_the_responses() -> None:
    sequences = [TrainingSequence((9, 9, 9, 30, 20, 20), 3), TrainingSequence((8, 30, MASK, MASK, MASK), 1)]
    assert likeliest_tokens(sequences, 2, VOCAB_SIZE, MASK).tolist() == [20, 30], "of responses, not of prompts, and never the mask"
    assert likeliest_tokens(sequences, 4, VOCAB_SIZE, MASK).tolist() == [0, 1, 20, 30], "filled up with the lowest ids"


def test_labels_are_columns_of_what_can_be_guessed() -> None:
    model, one = drafter(draft_vocab_size=3), sequence(12, 4)
    allowed = torch.tensor(sorted(set(one.token_ids[6:]))[:3])
    assert model.d2t is not None
    model.d2t.copy_(offsets_of(allowed))
    vocabulary, blocks = GuessedVocabulary(model, target()), pack_blocks([one], [(4, 5, 8)], 5, MASK)
    labels, can_be_guessed = vocabulary.labels(blocks)
    expected = blocks.has_label & torch.isin(blocks.labels, allowed)
    assert expected.any()
    assert torch.equal(can_be_guessed, expected)
    assert torch.equal(vocabulary.token_ids(labels)[expected], blocks.labels[expected])
    assert vocabulary.logits(torch.randn(2, model.config.hidden_size)).shape == (2, 3)
    assert vocabulary.column_of(int(allowed[1])).tolist() == [1]
    assert vocabulary.column_of(MASK).tolist() == []


def test_the_last_layers_are_the_targets() -> None:
    frozen, model = target(), drafter(num_hidden_layers=2)
    start_from_target(model, frozen)
    decoder = frozen.model.base_model
    for ours, theirs in zip(model.layers, decoder.layers[NUM_LAYERS - 2 :], strict=True):
        assert torch.equal(ours.self_attn.q_proj.weight, theirs.self_attn.q_proj.weight)
        assert torch.equal(ours.self_attn.k_norm.weight, theirs.self_attn.k_norm.weight), "this target norms its keys itself"
        assert torch.equal(ours.mlp.down_proj.weight, theirs.mlp.down_proj.weight)
    assert torch.equal(model.norm.weight, decoder.norm.weight)
    taps = torch.randn(5, 2 * frozen.hidden_size)
    assert torch.equal(model.fc(taps), taps[:, frozen.hidden_size :]), "the fusion is the deepest tap"


def test_norms_that_the_target_lacks_have_the_length_of_what_they_norm() -> None:
    frozen, model = target(), drafter(num_hidden_layers=1)
    attention = frozen.model.base_model.layers[-1].self_attn
    del attention.q_norm, attention.k_norm
    start_from_target(model, frozen)
    ours = model.layers[0].self_attn
    inputs = torch.randn(4000, frozen.hidden_size, generator=torch.Generator().manual_seed(0)) * model.layers[0].input_layernorm.weight
    for norm, projection in ((ours.q_norm, ours.q_proj), (ours.k_norm, ours.k_proj)):
        channels = projection(inputs).detach().view(len(inputs), -1, norm.weight.shape[0])
        torch.testing.assert_close(norm.weight.detach(), channels.square().mean(dim=(0, 1)).sqrt(), rtol=0.05, atol=0.01)


def test_what_does_not_fit_keeps_its_random_start() -> None:
    frozen, model = target(), drafter(num_hidden_layers=5, intermediate_size=40)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_from_target(model, frozen)
    after = model.state_dict()
    assert torch.equal(before["layers.0.self_attn.q_proj.weight"], after["layers.0.self_attn.q_proj.weight"]), "the target has four layers"
    assert torch.equal(before["layers.4.mlp.up_proj.weight"], after["layers.4.mlp.up_proj.weight"])
    assert not torch.equal(before["layers.4.self_attn.q_proj.weight"], after["layers.4.self_attn.q_proj.weight"])
