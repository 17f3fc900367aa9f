"""Toy chat templates of six kinds, the text each of them must write piece by piece, and a small tokenizer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import interp
from interp.models import Model
from tests.tiny import build

__all__ = ["MARKS", "TEMPLATES", "Parts", "chat_tokenizer", "chats", "tiny_chat"]

Messages = Sequence[dict[str, Any]]
Parts = list[tuple[str, str, str | None, int | None]]
"""Text, kind, role and turn of every piece of a rendered conversation."""

MARKS = (
    *("<s>", "</s>", "<|open|>", "<|close|>", "<|head|>", "<|/head|>", "<|eot|>"),
    *("<turn>", "<end>", "[INST]", "[/INST]", "<think>", "</think>", "<call>", "</call>"),
)
"""Marks of all templates, each one token: user texts are full of them."""
CORPUS = (
    "the user and the assistant talk about Paris, the capital of France. Is it big? It is. "
    "A model answers in its own words; system, tool and role are words too. 1 2 3 and so on.\n\n"
) * 4

CHATML = """
{%- for m in messages -%}
<|open|>{{ m.role }}{{ '\\n' }}{{ m.content }}<|close|>{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}<|open|>assistant{{ '\\n' }}{%- endif -%}
"""
LLAMA = """
{{- bos_token -}}
{%- if messages[0].role != 'system' -%}
<|head|>system<|/head|>{{ '\\n\\n' }}Today is {{ strftime_now('%d %b %Y') }}.<|eot|>
{%- endif -%}
{%- for m in messages -%}
<|head|>{{ m.role }}<|/head|>{{ '\\n\\n' }}{{ m.content | trim }}<|eot|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|head|>assistant<|/head|>{{ '\\n\\n' }}{%- endif -%}
"""
GEMMA = """
{{- bos_token -}}
{%- set first = messages[0].content | trim + '\\n\\n' if messages[0].role == 'system' else '' -%}
{%- set rest = messages[1:] if first else messages -%}
{%- for m in rest -%}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('roles must take turns') }}{%- endif -%}
<turn>{{ 'model' if m.role == 'assistant' else m.role }}{{ '\\n' }}
{%- if loop.first -%}{{ first }}{%- endif -%}
{{ m.content | trim }}<end>{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}<turn>model{{ '\\n' }}{%- endif -%}
"""
MISTRAL = """
{{- bos_token -}}
{%- set system = messages[0].content if messages[0].role == 'system' else none -%}
{%- for m in (messages[1:] if system else messages) -%}
{%- if m.role == 'user' -%}
{%- if loop.last and system -%}[INST] {{ system }}{{ '\\n\\n' }}{{ m.content }} [/INST]
{%- else -%}[INST] {{ m.content }} [/INST]{%- endif -%}
{%- else %} {{ m.content | trim }}{{ eos_token }}
{%- endif -%}
{%- endfor -%}
"""
THINKING = """
{%- set ns = namespace(last=-1) -%}
{%- for m in messages -%}
{%- if m.role == 'user' and not m.content.startswith('<call>') -%}
{%- set ns.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
<|open|>{{ m.role }}{{ '\\n' }}
{%- if m.role == 'assistant' -%}
{%- set thought = m.reasoning_content or '' -%}
{%- set said = m.content -%}
{%- if '</think>' in said -%}
{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
{%- set said = said.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{%- if loop.index0 > ns.last and thought -%}
<think>{{ '\\n' }}{{ thought.strip('\\n') }}{{ '\\n' }}</think>{{ '\\n\\n' }}{%- endif -%}
{{ said }}
{%- else -%}{{ m.content }}{%- endif -%}
<|close|>{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}<|open|>assistant{{ '\\n' }}<think>{{ '\\n' }}{%- endif -%}
"""
TOOLS = """
{%- if tools -%}<|open|>system{{ '\\n' }}Tools: {{ tools | tojson }}<|close|>{{ '\\n' }}{%- endif -%}
{%- for m in messages -%}
<|open|>{{ m.role }}{{ '\\n' }}{{ m.content or '' }}
{%- for call in m.tool_calls or [] -%}
{{ '\\n' }}<call>{"name": "{{ call.function.name }}", "arguments":
{{- ' ' }}{{ call.function.arguments | tojson }}}</call>
{%- endfor -%}
<|close|>{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}<|open|>assistant{{ '\\n' }}{%- endif -%}
"""


def _chatml(messages: Messages, opening: str = "<|open|>assistant\n") -> Parts:
    parts: Parts = []
    for turn, m in enumerate(messages):
        parts += _turn(f"<|open|>{m['role']}\n", m["content"], "<|close|>\n", m["role"], turn)
    return _opened(parts, messages, opening)


def _turn(before: str, text: str, after: str, role: str, turn: int, kind: str = "content") -> Parts:
    return [(before, "template", role, turn), (text, kind, role, turn), (after, "template", role, turn)]


def _opened(parts: Parts, messages: Messages, opening: str) -> Parts:
    """What is written, with the beginning of an answer behind messages that do not end in one."""
    if messages[-1]["role"] != "assistant":
        parts.append((opening, "template", "assistant", None))
    return [part for part in parts if part[0]]


def _llama(messages: Messages) -> Parts:
    from datetime import datetime

    day = f"{datetime.now():%d %b %Y}"
    parts: Parts = [("<s>", "template", None, None)]
    if messages[0]["role"] != "system":
        parts.append((f"<|head|>system<|/head|>\n\nToday is {day}.<|eot|>", "template", None, None))
    for turn, m in enumerate(messages):
        parts += _turn(f"<|head|>{m['role']}<|/head|>\n\n", m["content"].strip(), "<|eot|>", m["role"], turn)
    return _opened(parts, messages, "<|head|>assistant<|/head|>\n\n")


def _gemma(messages: Messages) -> Parts:
    parts: Parts = [("<s>", "template", None, None)]
    merged = messages[0]["role"] == "system"
    for turn, m in enumerate(messages):
        role = "model" if m["role"] == "assistant" else m["role"]
        if turn == 0 and merged:
            continue
        parts.append((f"<turn>{role}\n", "template", m["role"], turn))
        if turn == 1 and merged:
            parts.append((messages[0]["content"].strip(), "content", "system", 0))
            parts.append(("\n\n", "template", m["role"], turn))
        parts.append((m["content"].strip(), "content", m["role"], turn))
        parts.append(("<end>\n", "template", m["role"], turn))
    return _opened(parts, messages, "<turn>model\n")


def _mistral(messages: Messages) -> Parts:
    parts: Parts = [("<s>", "template", None, None)]
    for turn, m in enumerate(messages):
        if m["role"] == "system":
            continue
        if m["role"] == "assistant":
            parts += _turn(" ", m["content"].strip(), "</s>", "assistant", turn)
            continue
        parts.append(("[INST] ", "template", "user", turn))
        if turn == len(messages) - 1 and messages[0]["role"] == "system":
            parts.append((messages[0]["content"], "content", "system", 0))
            parts.append(("\n\n", "template", "user", turn))
        parts.append((m["content"], "content", "user", turn))
        parts.append((" [/INST]", "template", "user", turn))
    return parts


def _thinking(messages: Messages) -> Parts:
    asked = [
        at for at, m in enumerate(messages) if m["role"] == "user" and not m["content"].startswith("<call>")
    ]
    parts: Parts = []
    for turn, m in enumerate(messages):
        role, text, thought = m["role"], m["content"], m.get("reasoning_content") or ""
        before = f"<|open|>{role}\n"
        if role == "assistant" and "</think>" in text:
            thought = text.split("</think>")[0].split("<think>")[-1].strip("\n")
            text = text.split("</think>")[-1].lstrip("\n")
        if role == "assistant" and thought and turn > max(asked, default=-1):
            parts += _turn(f"{before}<think>\n", thought, "\n</think>\n\n", role, turn, "thinking")
            before = ""
        parts += _turn(before, text, "<|close|>\n", role, turn)
    return _opened(parts, messages, "<|open|>assistant\n<think>\n")


TEMPLATES: dict[str, tuple[str, Callable[[Messages], Parts]]] = {
    "chatml": (CHATML, _chatml),
    "llama": (LLAMA, _llama),
    "gemma": (GEMMA, _gemma),
    "mistral": (MISTRAL, _mistral),
    "thinking": (THINKING, _thinking),
    "tools": (TOOLS, _chatml),
}
"""Name -> the template, and the pieces that it must write."""


@cache
def _rules(blanks: bool) -> Tokenizer:
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special, size = ["<pad>", *MARKS], 420
    trainer = trainers.BpeTrainer(  # pyright: ignore[reportCallIssue]
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    rules.train_from_iterator([CORPUS], trainer)
    if blanks:  # tokens reach over words and lines, so that they straddle what the template writes
        rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        rules.train_from_iterator(["a.\n\nThe\nuser. \n"] * 9, trainer)
    return rules


def chat_tokenizer(template: str, *, straddles: bool = False) -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer with a toy template: a name of the table, or a template's text."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=_rules(straddles), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    made.chat_template = TEMPLATES[template][0] if template in TEMPLATES else template
    return made


def spelled_in_bytes() -> PreTrainedTokenizerFast:
    """One token for each byte, so that a character takes up to four."""
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    rules = Tokenizer(models.BPE(letters, []))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rules.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=rules)


def with_byte_fallback() -> PreTrainedTokenizerFast:
    """As SentencePiece writes what it does not know: in bytes, of which a row is read as a whole."""
    known = ["<unk>", "</s>", "\u2581", *"abc", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {word: number for number, word in enumerate(known)}
    rules = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    rules.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    rules.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="</s>", unk_token="<unk>")


def tiny_chat(template: str = "chatml") -> Model:
    """Load a tiny random llama that reads conversations."""
    tokenizer = chat_tokenizer(template)
    built = build("llama", vocab_size=len(tokenizer), max_position_embeddings=200)
    return interp.load(built, tokenizer=tokenizer)


def chats(path: Path, count: int = 60) -> Path:
    """Conversations whose label is what the assistant says."""
    draw, lines = random.Random(0), []
    for number in range(count):
        said, label = draw.choice([("It is big.", "yes"), ("So be it.", "no")])
        messages = [{"role": "user", "content": f"Is {number} it?"}, {"role": "assistant", "content": said}]
        lines.append(json.dumps({"messages": messages, "label": label, "group": f"g{number}"}))
    path.write_text("\n".join(lines))
    return path
