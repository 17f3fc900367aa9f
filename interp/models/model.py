"""The hooked wrapper: a Hugging Face model, its tokenizer and its family row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from interp.activations import Activations
from interp.conversations.rendering import NOTHING
from interp.errors import ConfigError, SiteError, counted
from interp.features.dictionary import Dictionary
from interp.models import fingerprints, forward
from interp.models.architecture import Architecture
from interp.models.backends.base import Backend
from interp.models.backends.native import Native
from interp.models.dictionaries import attached
from interp.models.families import Family
from interp.models.finished import conversations_of, with_answers
from interp.models.generated import Generation, labelled
from interp.models.generation import Asked, continued, end_tokens
from interp.models.interventions import Intervention
from interp.models.positions import Positions, in_words
from interp.models.quantized import Quantization
from interp.models.readout import Readout
from interp.models.sampling import Sampling, one_sampling
from interp.models.streaming import OnToken, read_stops
from interp.models.tokens import Prompts, Tokens, listed, tokenize
from interp.sites import Anatomy, Site, expand

__all__ = ["Model", "Run"]

_ROUGH = (
    "chosen at low precision, where another batch size may round the logits so that another token comes; for "
    "the same text whatever the batch, load the model in float32 or give batch_size=1",
)
_EAGER = ("attention was computed eagerly in this run, to see its probabilities",)

Sites = str | Site | Sequence[str | Site]


@dataclass(frozen=True, eq=False)
class Run:
    """What one run gave.

    Attributes:
        logits: ``[prompt vocab]`` after the last token, ``[prompt pos vocab]`` for all (zeros beyond a
            prompt's end), or None; in the model's own dtype.
        activations: what was captured, or None.
    """

    logits: Tensor | None
    activations: Activations | None


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """Read and change the inside of a Hugging Face causal language model that itself stays untouched.

    Make one with ``interp.load``. Nothing here changes the model outside a call.

    Attributes:
        hf: the Hugging Face model.
        tokenizer: its tokenizer, or None.
        architecture: where its sites are.
        name: what the user typed.
        weights: "trained", "random", "edited", "latent" or "latent-shuffled".
        certificate: what the validation at load measured.
        warnings: what a reader of any result should know.
        backend: what runs captures, interventions and gradients; None is the native hooks.
        quantization: what was done to its weights by ``interp.quantization.quantize``; None for nothing.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    architecture: Architecture
    name: str
    weights: str = "trained"
    certificate: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    backend: Backend | None = None
    quantization: Quantization | None = None

    def __repr__(self) -> str:
        """One line: name, family and sizes."""
        scheme = "" if self.quantization is None else f" at {self.quantization.scheme}"
        kind = f"{self.weights}{scheme}, {self.hf.config.model_type}"
        sizes = f"{counted(self.n_layers, 'layer')}, d_model {self.d_model}, {counted(self.n_heads, 'head')}"
        return f"Model({self.name!r}, {kind}, {sizes}, {self.dtype}, {self.device})"

    @property
    def _backend(self) -> Backend:
        return self.backend or Native(self.architecture)

    @property
    def scheme(self) -> str:
        """The precision its weights are held at; "none" for the checkpoint's own."""
        return "none" if self.quantization is None else self.quantization.scheme

    @property
    def called(self) -> str:
        """Its name in what is kept: of a model from a folder the folder's own, without where it lies."""
        path = Path(self.name)
        local = path.is_absolute() or self.name[:1] in (".", "~") or path.exists()
        return (path.name or path.resolve().name) if local else self.name

    @property
    def described(self) -> dict[str, str]:
        """Name, weights, fingerprints and scheme: what a result says about its model."""
        return {
            "name": self.called,
            "weights": self.weights,
            "fingerprint": self.fingerprint,
            "tokenizer_fingerprint": self.tokenizer_fingerprint,
            "scheme": self.scheme,
        }

    @property
    def family(self) -> Family:
        """The family row in use."""
        return self.architecture.family

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.architecture.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.architecture.d_model

    @property
    def n_heads(self) -> int:
        """Query heads of a block: of the first that has attention where they differ; 0 without attention."""
        return self.architecture.n_heads

    @property
    def n_kv_heads(self) -> int:
        """Key-value heads of that block."""
        return self.architecture.n_kv_heads

    @property
    def anatomy(self) -> Anatomy:
        """Heads and neurons of every block, and which layers have the kinds that not all of them have."""
        return self.architecture.anatomy

    @property
    def d_head(self) -> int:
        """Width of a head of that block."""
        return self.architecture.d_head

    @property
    def d_mlp(self) -> int:
        """Neurons of a block: of the first that has a down projection where they differ."""
        return self.architecture.d_mlp

    @property
    def vocab_size(self) -> int:
        """Number of tokens the model embeds."""
        return self.architecture.vocab_size

    @cached_property
    def max_length(self) -> int | None:
        """Longest prompt the model reads, or None where its configuration sets no limit."""
        return self.architecture.max_length

    @property
    def device(self) -> torch.device:
        """Where the input embedding is."""
        return self.architecture.device

    @property
    def dtype(self) -> torch.dtype:
        """The model's floating-point type."""
        return self.hf.dtype

    @property
    def sites(self) -> list[str]:
        """The kinds of site this model offers, in execution order."""
        return list(self.architecture.kinds)

    @property
    def disabled(self) -> Mapping[str, str]:
        """Kinds of site this model does not offer, each with the reason."""
        return self.architecture.disabled

    @property
    def fingerprint(self) -> str:
        """The sha256 of the weights and of what steers their use; computed again after a change."""
        modules = self.architecture.modules
        return fingerprints.of_weights(self.hf, self.architecture.tree.parameters(), modules)

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """The sha256 of the tokenizer's vocabulary and rules; "" without a tokenizer."""
        return fingerprints.of_tokenizer(self.tokenizer)

    def with_dictionaries(self, *dictionaries: Dictionary) -> Model:
        """The same model with features: ``feature.l``, ``feature.l.i`` and ``error.l`` become sites.

        Nothing of the model itself changes: writing a feature adds the change times its decoder row.

        Args:
            dictionaries: at most one for each layer, of ``interp.features.load``; they replace those before.

        Raises:
            ConfigError: two for one layer, one of another width than its site, or a backend that has no such
                sites.
            SiteError: the model does not offer one of their sites.
            ModelError: a dictionary needs what this family does not have.
        """
        if self.backend is not None:
            raise ConfigError(
                f"features are sites of the native backend, and {self.name!r} runs on {self.backend.name}. "
                "Load it with backend='native'."
            )
        return replace(self, architecture=attached(self.architecture, dictionaries))

    @property
    def dictionaries(self) -> Mapping[int, Dictionary]:
        """Layer to the dictionary whose features are sites there."""
        return self.architecture.dictionaries

    def tokenize(
        self,
        prompts: Prompts,
        *,
        padding_side: str = "right",
        add_bos: str | bool = "auto",
        tools: Sequence[Any] | None = None,
        continue_: str = "auto",
        options: Mapping[str, Any] = NOTHING,
    ) -> Tokens:
        """Turn prompts into the exact ids the model will see.

        Args:
            prompts: texts, lists of messages (a list of them is one conversation), lists of token ids, a
                tokenizer's batch, or one text.
            padding_side: where the padded tensors have their padding; it never changes a number.
            add_bos: of texts: "auto" does what the tokenizer does but never doubles; True ensures one; False
                adds none.
            tools: of conversations: what the chat template is told that the model may call.
            continue_: of conversations: how they end; see ``interp.conversations.render``.
            options: of conversations: more settings of the chat template.

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
            tools=tools,
            continue_=continue_,
            options=options,
        )

    def expand(self, sites: Sites) -> list[Site]:
        """Turn names and globs into this model's sites, refusing kinds it does not offer.

        Raises:
            SiteError: nothing matches, or the model does not offer the site.
        """
        found = expand(sites, self)
        texts = [str(site) for site in ([sites] if isinstance(sites, str | Site) else sites)]
        if "hook_embed" in texts and not self.certificate.get("embed_is_token", True):
            raise SiteError(
                f"'hook_embed' is the token embedding alone in TransformerLens, but in {self.name!r} there "
                "is more before block 0 (positions, a norm or a factor). Ask for 'embed', the stream that "
                "enters block 0."
            )
        if any(mark in text.partition(".")[0] for text in texts for mark in "*?["):
            found = [site for site in found if site.kind not in self.architecture.disabled]
        self.architecture.check(dict.fromkeys(site.kind for site in found))
        return found

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
            positions: "last", "all", a selector such as "role:assistant & content" or "answer[-1]"
                (``interp.conversations.selectors``), an int, a slice, one int or several ints per prompt, or
                a boolean mask ``[batch pos]``.
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
        raw = forward.run(
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
            tokenizer=self.tokenizer,
        )
        activations = (
            self.recorded(raw.tensors, tokens, raw.positions, asked=in_words(positions))
            if raw.tensors
            else None
        )
        return Run(raw.logits, activations)

    def logits(self, prompts: Prompts, *, batch_size: str | int = "auto") -> Float[Tensor, "batch vocab"]:
        """The fp32 logits after each prompt's last token."""
        logits = self.run(prompts, batch_size=batch_size).logits
        assert logits is not None
        return logits.float()

    def unembed(self, states: Float[Tensor, "batch d_model"]) -> Float[Tensor, "batch vocab"]:
        """The fp32 logits of residual states: final norm, head, scale and softcap (the logit lens).

        On ``resid_post`` of the last layer these are the model's own logits, which is checked at load.

        Raises:
            SiteError: the model's final norm could not be found or failed that check.
        """
        with torch.no_grad():
            return Readout.of(self.architecture).logits(states).float()

    def generate(
        self,
        prompts: Prompts,
        *,
        max_new_tokens: int | np.integer,
        sample: Sampling | None = None,
        capture: Sites | None = None,
        tokens: Positions | None = None,
        steps: str | Sequence[int] = "all",
        stop: str | int | np.integer | Sequence[str | int | np.integer] = (),
        on_token: OnToken | None = None,
        interventions: Sequence[Intervention] | None = None,
        batch_size: str | int = "auto",
        use_cache: bool = True,
        empty: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Generation:
        """Continue prompts, greedily or by drawing, reading and writing on the way.

        In float32 the tokens do not depend on the batch size, on other prompts, or on the cache: a token that
        rounding could change is chosen by logits of its prompt alone. The states are those of a pass over the
        finished text under the same interventions: bit for bit what ``capture`` gives at this batch size
        without cache, and up to rounding with it.

        Args:
            prompts: as for ``tokenize``. A conversation goes on with the assistant's answer, or with its last
                message where that is the assistant's.
            max_new_tokens: how many tokens to add, fewer where an end token or a stop comes first.
            sample: how tokens are drawn; None takes the likeliest.
            capture: sites to read.
            tokens: whose states are kept: "new", "all" (the prompt's too), or positions and selectors as for
                ``capture``, of the finished text. None keeps those of ``steps``.
            steps: "all" or numbers: step s is the pass that chooses new token s, and its state that of the
                newest token it reads, ``length - 1 + s``.
            stop: texts that end a prompt's text (left out, with what follows), and ids of more end tokens.
            on_token: called with a ``NewToken`` for each new token of each prompt; from step 0 again where
                memory ran out.
            interventions: what to write where. Positions count from the prompt's start, and negative ones
                from its end; ``"all"`` and open slices reach the new tokens.
            batch_size: as for ``capture``.
            use_cache: False recomputes everything at each step.
            empty: whether ``tokens`` may select nothing in all of the prompts; otherwise that is an error.
            temperature: with ``seed``, short for ``sample=Sampling(temperature, seed=seed)``.
            seed: of the draws.

        Raises:
            InterpError: one of its kinds; the message says what was asked, what was found, and the remedy.
        """
        prompts = listed(prompts)
        chats = conversations_of(prompts)
        read = self.tokenize(prompts, padding_side="left", continue_="open" if chats else "auto")
        ends = end_tokens(self.architecture, self.tokenizer, chat=bool(read.spans))
        asked = Asked(
            max_new_tokens=int(max_new_tokens) if isinstance(max_new_tokens, np.integer) else max_new_tokens,
            sampling=one_sampling(sample, temperature, seed),
            sites=self.expand(capture) if capture is not None else [],
            steps=steps,
            kept=tokens,
            stops=read_stops(stop, ends, self.tokenizer, self.vocab_size),
            interventions=interventions or (),
            batch_size=batch_size,
            use_cache=use_cache and self.family.cache,
            on_token=on_token,
            empty=empty,
        )
        made = continued(
            self._backend, read, asked, tokenizer=self.tokenizer, max_length=self.max_length, dims=self
        )
        states = self.recorded(made.tensors, made.full, made.positions) if made.tensors else None
        made_by = self.quantization  # what a GGUF file gave is in the model's own modules, as "dense" is
        dense = made_by is None or made_by.mode == "dense" or self.scheme.startswith("gguf")
        exact = dense and self.dtype in (torch.float32, torch.float64)
        return labelled(
            made,
            read,
            asked.sampling,
            states,
            messages=with_answers(chats, made.full, self.tokenizer),
            tokenizer=self.tokenizer,
            model=self.described,
            warnings=() if exact or batch_size == 1 or len(read) == 1 else _ROUGH,
        )

    def recorded(
        self, tensors: Mapping[Site, Tensor], tokens: Tokens, positions: list[Any], *, asked: str = ""
    ) -> Activations:
        """Label captured tensors with prompts, positions and the model they came from."""
        eager = _EAGER[: any(site.kind == "pattern" for site in tensors)]
        return Activations(
            {str(site): tensor for site, tensor in tensors.items()},
            tokens.token_ids,
            positions,
            tokens.texts,
            self.fingerprint,
            self.called,
            self.weights,
            self.scheme,
            warnings=(*self.warnings, *tokens.warnings, *eager, *_not_finite(tensors)),
            asked=asked,
        )


def _not_finite(tensors: Mapping[Site, Tensor]) -> Iterator[str]:
    """Which captured sites hold NaN or infinite values, in how many prompts, and in which first."""
    for site, tensor in tensors.items():
        bad = tensor.detach().isfinite().logical_not_()
        if not bad.any():
            continue
        rows = bad.flatten(1).any(dim=1).nonzero()[:, 0].tolist()
        what = "NaN" if tensor.isnan().any() else "infinite values"
        yield (
            f"'{site}' holds {what} in {len(rows)} of {counted(len(tensor), 'prompt')}, first in prompt "
            f"{rows[0]} "
            f"({int(bad.sum()):,} of {counted(bad.numel(), 'value')}, as {tensor.dtype}); capture in "
            "float32 or leave "
            "those prompts out."
        )
