"""How far two models that should be one are apart: in what is read, what edits do, and gradients.

Every number is the largest difference divided by the largest entry. Beside each stands a control: the same
comparison with something wrong in it, which must be large.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from interp.models import Intervention, Model

FAMILIES = ("gpt2", "llama", "qwen2", "qwen3", "gpt_neox", "gemma2")
PROMPTS = ["w01 w02 w03 w04 w05 w06 w07", "w10 w11", "w20 w21 w22 w23", "w30"]
KINDS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "mlp_act")
PARTS = ("head.{}.2", "neuron.{}.5", "q.{}.1", "v.{}.0")


def sites(model: Model, layer: int) -> list[str]:
    """Name one site of every writable kind that a layer of the model has."""
    names = [*(f"{kind}.{layer}" for kind in KINDS), *(part.format(layer) for part in PARTS)]
    return [name for name in names if name.partition(".")[0] not in model.disabled]


def far(found: Tensor, wanted: Tensor) -> float:
    """Give the largest difference, as a share of the largest entry."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def read(one: Model, two: Model) -> dict[str, float]:
    """Compare what is read at all positions of prompts of several lengths."""
    names = ["embed", *sites(one, 0), *sites(one, 1), *sites(one, 2), "final_norm", "pattern.1"]
    ours, theirs = (model.run(PROMPTS, capture=names, positions="all", logits="all") for model in (one, two))
    errors = {name: far(theirs.activations[name], ours.activations[name]) for name in names}
    errors["logits"] = far(theirs.logits, ours.logits)
    errors["control"] = far(theirs.activations["resid_post.0"], ours.activations["resid_post.1"])
    return errors


def edited(one: Model, two: Model) -> dict[str, float]:
    """Compare logits after the same edit at every kind of site, with a second edit before it."""

    first = Intervention("resid_pre.0", lambda stream: stream.flip(-1), 0)

    def logits(model: Model, name: str) -> Tensor:
        edits = [first, Intervention(name, lambda value: 0.5 * value + 0.3, "last")]
        return model.run(PROMPTS, interventions=edits).logits

    plain = one.run(PROMPTS, interventions=[first]).logits
    errors, moved = {}, []
    for name in sites(one, 1):
        wanted = logits(one, name)
        errors[name] = far(logits(two, name), wanted)
        moved.append(far(plain, wanted))
    errors["control"] = min(moved)
    return errors


def differentiated(one: Model, two: Model) -> dict[str, float]:
    """Compare gradients of a logit difference with respect to captured sites."""
    names = sites(one, 1)

    def gradients(model: Model, token: int) -> list[Tensor]:
        run = model.run(PROMPTS, capture=names, positions="all", grad=True)
        difference = (run.logits[:, token] - run.logits[:, 7]).sum()
        return list(torch.autograd.grad(difference, [run.activations[name] for name in names]))

    ours, theirs, other = gradients(one, 3), gradients(two, 3), gradients(two, 4)
    errors = {name: far(t, o) for name, t, o in zip(names, theirs, ours, strict=True)}
    errors["control"] = min(far(t, o) for t, o in zip(other, ours, strict=True))
    return errors


def continued(one: Model, two: Model) -> dict[str, float]:
    """Compare what is read while generating; the tokens must be the same."""
    ours, theirs = (model.generate(PROMPTS, max_new_tokens=3, capture="resid_post.1") for model in (one, two))
    same = ours.token_ids == theirs.token_ids
    mine, yours = ours.activations["resid_post.1"], theirs.activations["resid_post.1"]
    control = far(yours[:, 0], mine[:, 1])
    return {"tokens": 0.0 if same else 1.0, "resid_post.1": far(yours, mine), "control": control}


MEASURES: dict[str, Callable[[Model, Model], dict[str, float]]] = {
    "read": read,
    "edited": edited,
    "differentiated": differentiated,
    "continued": continued,
}


def state(hf: nn.Module) -> dict[str, Any]:
    """Take down everything of a model that a library might change."""
    found: dict[str, Any] = {"configuration": str(vars(hf.config))}
    for name, module in hf.named_modules():
        found[f"class of {name}"] = type(module)
        found[f"own names of {name}"] = sorted(vars(module))
        found[f"mode of {name}"] = module.training
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        found[f"hooks of {name}"] = [list(kept) for kept in hooks]
        found[f"forward of {name}"] = vars(module).get("forward")
    for name, tensor in [*hf.named_parameters(), *hf.named_buffers()]:
        found[name] = (id(tensor), tensor._version, tensor.requires_grad)
    return found
