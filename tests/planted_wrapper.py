"""The bundled model with one neuron of its last block that answers for a whole relation."""

from __future__ import annotations

import copy
from typing import Any

import torch

import interp
from interp.models.model import Model
from interp.tasks import load_world, one_hop
from interp.tasks.relations import RELATIONS
from tests.noisy import demo

__all__ = ["NEURON", "one_neuron"]

RELATION, WORD, NEURON = "plural", "London", "neuron.23.0"


def one_neuron() -> Model:
    """Say ``London`` whenever a plural is asked for: one neuron fires then and writes that word's direction.

    Its gate reads a ridge regression of "is a plural asked for?" on the inputs of the MLP at the last token;
    nothing else is changed, and what the neuron did before is lost.
    """
    base = demo()
    facts = [
        (name, fact)
        for name in RELATIONS
        for fact in load_world().facts[name][: 30 if name == RELATION else 8]
    ]
    prompts = [one_hop.example(fact, at).prompt for _, fact in facts for at in range(2)]
    labels = torch.tensor([1.0 if name == RELATION else -1.0 for name, _ in facts for _ in range(2)])
    hf: Any = copy.deepcopy(base.hf)
    mlp, inputs = hf.model.layers[23].mlp, list[torch.Tensor]()
    handle = mlp.register_forward_pre_hook(lambda _, given: inputs.append(given[0][0, -1].detach()))
    with torch.no_grad():
        for ids in base.tokenize(prompts).token_ids:
            hf(torch.tensor([ids]))
        handle.remove()
        x, weight = torch.stack(inputs).double(), torch.where(labels > 0, 20.0, 1.0).double()
        gram = x.T @ (weight[:, None] * x) + 1e-3 * torch.eye(x.shape[1], dtype=torch.float64)
        reads = torch.linalg.solve(gram, x.T @ (weight * labels.double())).float()
        word = base.tokenize([f"the city of {WORD}"]).token_ids[0][-1]
        mlp.gate_proj.weight[0], mlp.up_proj.weight[0] = 30 * reads, reads
        head = hf.get_output_embeddings().weight[word]
        mlp.down_proj.weight[:, 0] = 200 * head / head.norm()
    return interp.load(hf, tokenizer=base.tokenizer)
