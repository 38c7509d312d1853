"""Next-token logits from a token tree: prompts that begin alike are read once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from langchain_safeguard.engines import tree_attention
from langchain_safeguard.engines.memory import out_of_memory
from langchain_safeguard.engines.next_token import Context, PlainNextToken
from langchain_safeguard.engines.products import HastenedLinear, hasten
from langchain_safeguard.engines.token_tree import Node, TokenTree
from langchain_safeguard.errors import GuardError

logger = logging.getLogger(__name__)

_LEAST = 16
"""How many tokens must fit into one forward pass before memory counts as exhausted."""


class TreeNextToken:
    """Computes what a token tree lacks, in forward passes without padding.

    Args:
        model: A causal language model of transformers, in evaluation mode. Its attention
            implementation is replaced.
        budget: The bytes of keys and values to keep between runs.
        pass_tokens: The most tokens in one forward pass; halved for good when memory runs out.
    """

    def __init__(self, model: Any, *, budget: int, pass_tokens: int) -> None:
        """Take the model apart into its decoder and the rows of its head."""
        decoder = model.get_decoder()
        # Llama 4's text model takes itself for its decoder.
        self._decoder = model.model if decoder is model else decoder
        self._head = model.get_output_embeddings()
        config = model.config.get_text_config()
        self._softcap = getattr(config, "final_logit_softcapping", None)
        self._scale = _logit_scale(config)
        self._most = pass_tokens
        self.tree = TokenTree(budget)
        self.asked = 0
        """How many tokens the contexts had so far."""
        self.computed = 0
        """How many tokens were computed so far; the others had been read before."""
        self.passes = 0
        """In how many forward passes."""
        model.set_attn_implementation(tree_attention.NAME)
        hasten(model)

    @torch.inference_mode()
    def logits(self, contexts: Sequence[Context]) -> list[torch.Tensor]:
        """Return the logits of each context; what contexts share is computed once."""
        self.asked += sum(len(context.ids) for context in contexts)
        found: list[torch.Tensor] = []
        begin = 0
        try:
            leaves: list[Node] = []
            for end, context in enumerate(contexts, start=1):
                leaves.append(self._leaf(context))
                # What a run computes stays until its end: many long prompts take several runs.
                if end == len(contexts) or self.tree.fresh >= self.tree.room:
                    found += self._run(contexts[begin:end], leaves)
                    self.tree.settle()
                    begin, leaves = end, []
            return found
        finally:
            self.tree.settle()

    def _leaf(self, context: Context) -> Node:
        node = self.tree.insert(context.ids)
        if node.computed and node.hidden is None:
            self.tree.reopen(node)
        return node

    def _run(self, contexts: Sequence[Context], leaves: Sequence[Node]) -> list[torch.Tensor]:
        """Compute some contexts, and forget what is not worth keeping."""
        while pack := self._pack(leaves):
            try:
                self._forward(pack)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                self._spare(error)
        found = self._rows(leaves, contexts)
        for context, leaf in zip(contexts, leaves, strict=True):
            if context.keep < len(context.ids):
                self.tree.truncate(context.ids, context.keep)
            elif len(leaf.ids) == 1:
                self.tree.join(leaf)
        return found

    def _pack(self, leaves: Sequence[Node]) -> list[Node]:
        """Return nodes that are not computed, parents first, as many as fit into one pass."""
        pack: dict[int, Node] = {}
        room = self._most
        for leaf in leaves:
            for node in leaf.path():
                if node.computed or id(node) in pack:
                    continue
                if len(node.ids) > room:
                    # A whole node waits for the next pass rather than being cut without need.
                    if pack:
                        break
                    node = self.tree.begin(node, room)
                pack[id(node)] = node
                room -= len(node.ids)
        return [*pack.values()]

    def _forward(self, pack: Sequence[Node]) -> None:
        device = self._decoder.get_input_embeddings().weight.device
        ids = torch.tensor([[token for node in pack for token in node.ids]])
        places = [at for node in pack for at in range(node.start, node.start + len(node.ids))]
        with tree_attention.packed(pack):
            hidden = self._decoder(
                input_ids=ids.to(device, non_blocking=True),
                position_ids=torch.tensor([places]).to(device, non_blocking=True),
                use_cache=False,
            ).last_hidden_state[0]
        if not pack[0].computed:
            raise NotImplementedError("the model does not ask for its attention to be computed")
        self.passes += 1
        self.computed += len(places)
        for node, rows in zip(
            pack, hidden.split_with_sizes([len(node.ids) for node in pack]), strict=True
        ):
            node.hidden = rows

    def _rows(self, leaves: Sequence[Node], contexts: Sequence[Context]) -> list[torch.Tensor]:
        """Apply the head: only to the last token of each context, and only the rows asked for."""
        last = torch.stack([leaf.hidden[-1] for leaf in leaves if leaf.hidden is not None])
        last = last.to(self._head.weight.device)
        by_choice: dict[tuple[int, ...] | None, list[int]] = {}
        for place, context in enumerate(contexts):
            choices = None if context.choices is None else tuple(context.choices)
            by_choice.setdefault(choices, []).append(place)
        parts = [self._apply_head(last[rows], choices) for choices, rows in by_choice.items()]
        # One copy to the CPU: each waits for the device.
        flat = torch.cat([part.flatten() for part in parts]).cpu()
        found: dict[int, torch.Tensor] = {}
        for places, part, row in zip(
            by_choice.values(),
            parts,
            flat.split_with_sizes([part.numel() for part in parts]),
            strict=True,
        ):
            found.update(zip(places, row.view(part.shape), strict=True))
        return [found[place] for place in range(len(contexts))]

    def _apply_head(self, hidden: torch.Tensor, choices: Sequence[int] | None) -> torch.Tensor:
        # A quantised or adapted head has no rows that can be taken out.
        if choices is not None and type(self._head) in (torch.nn.Linear, HastenedLinear):
            at = torch.tensor(choices, device=hidden.device)
            bias = None if self._head.bias is None else self._head.bias[at]
            logits = functional.linear(hidden, self._head.weight[at], bias)
        else:
            logits = self._head(hidden)
            logits = logits if choices is None else logits[:, list(choices)]
        logits = logits.float() * self._scale
        if self._softcap is not None:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        return logits

    def _spare(self, error: Exception) -> None:
        """Make do with less memory after it ran out."""
        if self._most <= _LEAST:
            raise GuardError(f"memory ran out on {_LEAST} tokens at once") from error
        self._most = max(self._most // 2, _LEAST)
        self.tree.halve()
        logger.warning("memory ran out; forward passes have at most %d tokens now", self._most)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def agrees(model: Any, tree: TreeNextToken, vocabulary: int, tolerance: float) -> bool:
    """Tell whether the tree gives the same probabilities as the model's own code.

    Two short made-up contexts that share a beginning are read at once, then one of them again.

    Args:
        model: The model, not yet handed to a tree.
        tree: The tree around it.
        vocabulary: How many tokens there are.
        tolerance: By how much a probability among 64 tokens may differ.
    """
    shared = [(7 * at + 3) % vocabulary for at in range(24)]
    choices = [(31 * at + 1) % vocabulary for at in range(64)]
    contexts = [
        Context([*shared, 5 % vocabulary, 9 % vocabulary], choices, keep=25),
        Context([*shared, 8 % vocabulary], choices, keep=24),
        Context([*shared, 5 % vocabulary, 11 % vocabulary], choices),
    ]
    model.set_attn_implementation(own_attention(model))
    expected = PlainNextToken(model).logits(contexts)
    model.set_attn_implementation(tree_attention.NAME)
    try:
        found = [*tree.logits(contexts[:2]), *tree.logits(contexts[2:])]
    except Exception as error:
        logger.warning("the token tree does not fit this model: %s", type(error).__name__)
        return False
    finally:
        tree.tree.clear()
    return all(
        bool(((_spread(one) - _spread(other)).abs() <= tolerance).all())
        for one, other in zip(expected, found, strict=True)
    )


def _spread(logits: torch.Tensor) -> torch.Tensor:
    """Return probabilities; those of a model that is sure of nothing are told apart as well."""
    return (logits / logits.std().clamp(min=1e-6, max=1.0)).softmax(0)


def own_attention(model: Any) -> str:
    """Return which of transformers' attention implementations is exact for a model."""
    config = model.config.get_text_config()
    # Scaled dot product attention knows neither a soft limit of scores nor sinks.
    soft = getattr(config, "attn_logit_softcapping", None) is not None
    fused = getattr(model, "_supports_sdpa", True) and config.model_type != "gpt_oss" and not soft
    return "sdpa" if fused else "eager"


def _logit_scale(config: Any) -> float:
    if scaling := getattr(config, "logits_scaling", None):
        return 1 / float(scaling)
    return float(getattr(config, "logit_scale", None) or 1.0)
