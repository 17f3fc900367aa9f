"""The hooked wrapper: a Hugging Face model, its tokenizer and its family row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from interp.activations import Activations
from interp.models import running
from interp.models.anatomy import Anatomy
from interp.models.backend import Backend, Native
from interp.models.batches import plan_batches
from interp.models.facts import Facts
from interp.models.generation import Generation, generate
from interp.models.interventions import Intervention
from interp.models.positions import Positions
from interp.models.quantized import Quantization
from interp.models.running import Run
from interp.models.tokens import Prompts, Tokens, tokenize
from interp.sites import Site

__all__ = ["Model", "Run"]

Sites = str | Site | Sequence[str | Site]


@dataclass(frozen=True, eq=False, repr=False)
class Model(Facts):
    """Read and change the inside of a Hugging Face causal language model that itself stays untouched.

    Make one with ``interp.load``. Nothing here changes the model outside a call.

    Attributes:
        hf: the Hugging Face model.
        tokenizer: its tokenizer, or None.
        anatomy: where its sites are.
        name: what the user typed.
        weights: "trained", "random" or "edited".
        certificate: what the validation at load measured.
        warnings: what a reader of any result should know.
        backend: what runs captures, interventions and gradients; None is the native hooks.
        quantization: what was done to its weights by ``interp.quantization.quantize``; None for nothing.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    anatomy: Anatomy
    name: str
    weights: str = "trained"
    certificate: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    backend: Backend | None = None
    quantization: Quantization | None = None

    def __repr__(self) -> str:
        """Return one line: name, family and sizes."""
        scheme = "" if self.quantization is None else f" at {self.quantization.scheme}"
        kind = f"{self.weights}{scheme}, {self.hf.config.model_type}"
        sizes = f"{self.n_layers} layers, d_model {self.d_model}, {self.n_heads} heads"
        return f"Model({self.name!r}, {kind}, {sizes}, {self.dtype}, {self.device})"

    @property
    def _backend(self) -> Backend:
        return self.backend or Native(self.anatomy)

    def tokenize(
        self, prompts: Prompts, *, padding_side: str = "right", add_bos: str | bool = "auto"
    ) -> Tokens:
        """Turn prompts into the exact ids the model will see.

        Args:
            prompts: texts, lists of token ids, a tokenizer's batch, or one text.
            padding_side: where the padded tensors have their padding; it never changes a number.
            add_bos: "auto" does what the tokenizer does but never doubles; True ensures one; False adds none.

        Raises:
            DataError: an empty or too long prompt, an id the model does not have, or no tokenizer for texts.
        """
        return tokenize(
            prompts,
            self.tokenizer,
            name=self.name,
            vocab_size=self.vocab_size,
            max_length=self.max_length,
            padding_side=padding_side,
            add_bos=add_bos,
        )

    def expand(self, sites: Sites) -> list[Site]:
        """Turn names and globs into this model's sites, refusing kinds it does not offer.

        Raises:
            SiteError: nothing matches, or the model does not offer the site.
        """
        return running.chosen_sites(self.anatomy, self, sites, self.certificate.get("embed_is_token", True))

    def capture(
        self,
        prompts: Prompts,
        sites: Sites,
        positions: Positions = "last",
        *,
        batch_size: str | int = "auto",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        padding_side: str = "right",
        progress: bool = False,
    ) -> Activations:
        """Read sites in forward passes that end after the deepest one.

        Args:
            prompts: as for ``tokenize``.
            sites: names, globs or ``Site`` values, for example ``["resid_post.*", "head.5.3"]``.
            positions: "last", "all", an int, a slice, one int per prompt, or a boolean mask ``[batch pos]``.
            batch_size: prompts per pass; "auto" fills a token budget and halves it when memory runs out.
            device: where to keep the results; None leaves them where the model is.
            dtype: of the results; None keeps the model's.
            padding_side: of the internal batches; the numbers do not depend on it.
            progress: show a progress bar.

        Returns:
            Per site ``[prompt, ...]`` for one position each, else ``[prompt, pos, ...]`` padded with zeros.

        Raises:
            InterpError: one of its kinds; the message says what was asked, what was found, and the remedy.
        """
        run = self.run(
            prompts,
            capture=sites,
            positions=positions,
            logits="none",
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            padding_side=padding_side,
            progress=progress,
        )
        assert run.activations is not None
        return run.activations

    def run(
        self,
        prompts: Prompts,
        *,
        interventions: Sequence[Intervention] | None = None,
        capture: Sites | None = None,
        positions: Positions = "last",
        logits: str = "last",
        batch_size: str | int = "auto",
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        padding_side: str = "right",
        progress: bool = False,
        grad: bool = False,
    ) -> Run:
        """Run the model, writing some sites and reading others (readings see what was written).

        Args:
            prompts: as for ``tokenize``.
            interventions: what to write where; one that fires nowhere is an error.
            capture: sites to read, as for ``capture``.
            positions: of the captured sites.
            logits: "last", "all" or "none".
            batch_size: as for ``capture``.
            device: as for ``capture``; likewise ``dtype``, ``padding_side`` and ``progress``.
            dtype: of the captured tensors.
            padding_side: of the internal batches.
            progress: show a progress bar.
            grad: keep the graph: one batch, ``positions="all"``, and captured tensors are nodes of it,
                so that ``torch.autograd.grad`` with respect to them works.

        Raises:
            InterpError: one of its kinds; the message says what was asked, what was found, and the remedy.
        """
        if grad and self.quantization is not None:
            self.quantization.check_gradients(self.name)
        tokens = self.tokenize(prompts, padding_side=padding_side)
        found, tensors, recorded = running.run(
            self._backend,
            self,
            tokens,
            sites=self.expand(capture) if capture is not None else [],
            positions=positions,
            logits=logits,
            interventions=interventions or (),
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            progress=progress,
            grad=grad,
        )
        return Run(found, self.recorded(tensors, tokens, recorded) if tensors else None)

    def logits(self, prompts: Prompts, *, batch_size: str | int = "auto") -> Float[Tensor, "batch vocab"]:
        """Return the fp32 logits after each prompt's last token."""
        logits = self.run(prompts, batch_size=batch_size).logits
        assert logits is not None
        return logits.float()

    def unembed(self, states: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch vocab"]:
        """Give fp32 logits of residual states: final norm, head, scale and softcap (the logit lens).

        On ``resid_post`` of the last layer these are the model's own logits, which is checked at load.

        Raises:
            SiteError: the model's final norm could not be found or failed that check.
        """
        from interp.models.validate import finished

        norm: Any = self.anatomy.locate(Site("final_norm")).module
        head: Any = self.hf.get_output_embeddings()
        with torch.no_grad():
            normed = norm.forward(states.to(self.device, self.dtype))
            return finished(self.anatomy, head(normed)).float()

    def generate(
        self,
        prompts: Prompts,
        *,
        max_new_tokens: int,
        capture: Sites | None = None,
        steps: str | Sequence[int] = "all",
        interventions: Sequence[Intervention] | None = None,
        batch_size: str | int = "auto",
        use_cache: bool = True,
    ) -> Generation:
        """Continue prompts greedily, reading and writing on the way.

        Step s is the pass that chooses new token s (0-based); its captured position is that of the newest
        token it reads, ``length - 1 + s``. Interventions count positions from the prompt's start.

        Args:
            prompts: as for ``tokenize``.
            max_new_tokens: how many tokens to add, fewer where the end-of-sequence token comes first.
            capture: sites to read.
            steps: at which steps; "all" or numbers.
            interventions: what to write where; ``"all"`` and open slices reach the new tokens.
            batch_size: as for ``capture``.
            use_cache: False recomputes everything at each step; the result is the same.

        Raises:
            InterpError: one of its kinds; the message says what was asked, what was found, and the remedy.
        """
        tokens = self.tokenize(prompts, padding_side="left")
        raw = generate(
            self._backend,
            tokens,
            tokenizer=self.tokenizer,
            max_new_tokens=max_new_tokens,
            max_length=self.max_length,
            dims=self,
            sites=self.expand(capture) if capture is not None else [],
            steps=steps,
            interventions=interventions or (),
            batches=plan_batches(tokens.lengths, batch_size, device=self.device.type),
            use_cache=use_cache,
        )
        full = replace(
            tokens,
            token_ids=raw.all_ids,
            texts=tuple(map("".join, zip(tokens.texts, raw.texts, strict=True))),
        )
        activations = self.recorded(raw.tensors, full, raw.positions) if raw.tensors else None
        return Generation(raw.texts, raw.token_ids, activations)
