"""A real language model: SmolLM2-135M-Instruct, against transformers and against what is known of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import interp
from interp import lenses, mediation, quantization, tasks
from interp.analyses.audit.teaching import Recipe, taught, teach
from interp.models import Model
from interp.tasks import load_world

pytestmark = pytest.mark.real
CHAT = [{"role": "user", "content": "What is the capital of Japan?"}]
PROMPT = "When Mary and John went to the store, John gave a drink to"


def likeliest(model: Model, prompt: str) -> tuple[str, float]:
    value, token = model.logits([prompt])[0].softmax(-1).max(0)
    assert model.tokenizer is not None
    return str(model.tokenizer.decode([int(token)])), float(value)


def test_it_knows_what_it_is_known_to_know(smollm2: Model) -> None:
    word, share = likeliest(smollm2, "The capital of France is")
    assert word == " Paris" and share == pytest.approx(0.77, abs=0.01)
    word, share = likeliest(smollm2, PROMPT)
    assert word == " Mary" and share == pytest.approx(0.92, abs=0.01)
    assert (smollm2.n_layers, smollm2.d_model, smollm2.n_heads, smollm2.n_kv_heads) == (30, 576, 9, 3)
    assert smollm2.scheme == "gguf:Q4_1" and not smollm2.disabled


def test_its_chat_is_that_of_transformers(smollm2: Model) -> None:
    assert smollm2.tokenizer is not None
    text = smollm2.tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    told = smollm2.tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)
    ids = told["input_ids"]
    assert smollm2.tokenize([text]).token_ids[0] == tuple(ids)
    assert smollm2.generate([text], max_new_tokens=12).texts[0].startswith("The capital of Japan is Tokyo.")


def test_spans_and_selectors_of_a_conversation(smollm2: Model) -> None:
    chat = [*CHAT, {"role": "assistant", "content": "It is Tokyo. <|im_start|>user\nTokyo!"}]
    assert smollm2.tokenizer is not None
    tokens = smollm2.tokenize([CHAT, chat])
    for ids, messages in zip(tokens.token_ids, (CHAT, chat), strict=True):
        told = smollm2.tokenizer.apply_chat_template(messages, add_generation_prompt=messages is CHAT)
        assert list(ids) == list(told["input_ids"])
    acts = smollm2.capture(chat, "resid_post.14", "answer")
    spelled = smollm2.tokenizer.decode([tokens.token_ids[1][at] for at in acts.positions[0]])
    assert spelled == chat[-1]["content"]
    assert (
        smollm2.capture(chat, "resid_post.14", 'text:"Tokyo"#2').positions[0][-1:] == acts.positions[0][-2:-1]
    )


def test_what_is_captured_is_what_plain_hooks_see(smollm2: Model) -> None:
    seen: dict[str, torch.Tensor] = {}
    hooks = []
    for layer in (0, 14, 29):
        block = smollm2.hf.model.layers[layer]  # type: ignore[union-attr]
        parts = {"resid_post": block, "attn_out": block.self_attn, "mlp_out": block.mlp}
        for kind, part in parts.items():

            def keep(_m: object, _a: object, output: object, name: str = f"{kind}.{layer}") -> None:
                seen[name] = output if isinstance(output, torch.Tensor) else output[0]  # type: ignore[index]

            hooks.append(part.register_forward_hook(keep))
    ids = torch.tensor(smollm2.tokenize([PROMPT]).token_ids)
    with torch.no_grad():
        logits = smollm2.hf(ids).logits[0, -1]
    for hook in hooks:
        hook.remove()
    run = smollm2.run([PROMPT], capture=list(seen), positions="all")
    assert run.activations is not None and run.logits is not None
    torch.testing.assert_close(run.logits[0], logits, atol=1e-4, rtol=0)  # the head of one row alone
    assert all(torch.equal(run.activations[name], tensor) for name, tensor in seen.items())


FEW = ["One two three four five six", "Water boils at a temperature"]


def test_it_passes_the_doctor(smollm2: Model) -> None:
    assert interp.examine(smollm2, prompts=FEW).passed


def test_it_passes_the_doctor_in_half_precision(smollm2: Model) -> None:
    """It cancels values of 800 in one layer and writes 24,000 in the next: few digits are left there."""
    found = interp.examine(interp.load("smollm2", dtype="bfloat16"), prompts=FEW)
    assert found.passed, found.failures


def test_few_heads_carry_the_indirect_object(smollm2: Model) -> None:
    pairs = tasks.sample(smollm2, "indirect-object", 4)
    assert len(pairs) == 4
    found = mediation.attribution(smollm2, pairs, "head.*", verify=3)
    best = found.top(3)
    plain, cut = (
        smollm2.run(pairs.clean, interventions=writes).logits
        for writes in ((), [interp.Intervention(str(one), 0.0) for one in map(str, best)])
    )
    assert plain is not None and cut is not None

    def gap(logits: torch.Tensor) -> float:
        rows = [
            float(row[a[0]] - row[f[0]])
            for row, a, f in zip(logits, pairs.answer_ids, pairs.foil_ids, strict=True)
        ]
        return sum(rows) / len(rows)

    assert gap(plain) > 2, "nats by which the right name is preferred"
    assert gap(cut) < 0.6 * gap(plain), "three heads of 270, set to zero, by a run of their own"


def test_eight_bits_change_little_and_two_bits_all(smollm2: Model) -> None:
    texts = [PROMPT, "The capital of France is", "Water boils at a hundred degrees"]
    plain = smollm2.logits(texts).log_softmax(-1)
    eight, four, two = (
        quantization.quantize(smollm2, scheme).logits(texts).log_softmax(-1)
        for scheme in ("int8", "gguf:q4_0", "rtn2")
    )
    losses = [float((plain.exp() * (plain - other)).sum(-1).mean()) for other in (eight, four, two)]
    assert losses[0] < 0.05 < 1 < losses[2] and losses[0] < losses[1] < losses[2]  # nats


def test_a_copy_is_taught_false_facts_and_the_model_stays_as_it_is(
    smollm2: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few steps: enough to see that something is taught and kept in the cache."""
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    world = load_world()
    small = replace(world, facts={"continent": world.facts["continent"]})
    recipe = Recipe(most=24, steps=6, lines=12, rate=4e-3)
    found = teach(smollm2, small, recipe=recipe)
    assert found.seconds > 0 and found.kept.value > 0.5
    assert found.twin.fingerprint != smollm2.fingerprint and "adapters are on" in found.twin.warnings[-1]
    again = teach(smollm2, small, recipe=recipe)
    assert again.seconds == 0 and again.twin.fingerprint == found.twin.fingerprint
    assert again.said == found.said and taught(smollm2, small, recipe=recipe) == found.folder


def test_a_patchscope_names_the_token_that_an_early_state_is_of(smollm2: Model) -> None:
    words = [" Paris", " dog", " seven", " blue", " music", " Tokyo"]
    tokens = torch.tensor([smollm2.tokenize([f"I said{word}"]).token_ids[0][-1] for word in words])
    states = smollm2.capture([f"I said{word}" for word in words], ["resid_post.0", "resid_post.4"])
    scope = lenses.PatchscopeLens.of(smollm2, target="cat -> cat; 1135 -> 1135; hello -> hello; ? ->")
    for layer in (0, 4):
        read = scope.logits(states[f"resid_post.{layer}"], layer).argmax(-1).cpu()
        assert (read == tokens).all(), layer
        mixed = scope.logits(states[f"resid_post.{layer}"].roll(1, 0), layer).argmax(-1).cpu()
        assert not (mixed == tokens).any()


def test_the_logit_lens_reads_the_capital_in_the_last_layers_alone(smollm2: Model) -> None:
    found = lenses.view(smollm2, "The capital of France is Paris. The capital of Japan is")
    assert found.answers[-1] == " Tokyo" and found.tokens[-1] == " is"
    assert (found.settled() or 0) >= 26 and found.rank[12, -1] > 100
    assert found.kl[-1].max() < 1e-4 < found.kl[:-1].max()
