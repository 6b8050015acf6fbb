"""Where the explainer looks: the cross-attention with which each token of a text was chosen."""

import torch
from torch import Tensor

from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.data.text_codec import TextCodec
from utils.evaluation.generation import DecodingState, VADOfTokens


@torch.inference_mode()
def cross_attention(
    model: SEVLM,
    image: ImageFeatures,
    codec: TextCodec,
    vad_of: VADOfTokens | None,
    tokens: list[list[int]],
) -> Tensor:
    """The attention over the image behind each token of texts that are written: float32 [T, S, blocks, G].

    Entry [t, s] belongs to token s of text t: the weights at the position before it, from which it was predicted, in the
    very step in which it was written (later tokens would change the VAD features, and the weights with them). They are
    averaged over the heads and sum to 1 over the G patches of the grid, row by row from the top left. Behind a text's end,
    up to the S tokens of the longest, they mean nothing.

    Args:
        model: in evaluation mode. image: features of the B images.
        vad_of: None for a model without VAD fusion.
        tokens: of T = n B texts, what follows the prompt; those of an image are neighbours.
    """
    state = DecodingState(model, image, codec.prompt(), vad_of, len(tokens) // image.grid.shape[0])
    steps = max(map(len, tokens))
    padded = torch.tensor([text + [codec.pad_id] * (steps - len(text)) for text in tokens], device=state.ids.device)
    weights = []
    with _Queries(model) as queries:
        for step in range(steps):
            state.next_hidden()
            weights.append(torch.stack([_weights(model, state, *of_block) for of_block in enumerate(queries.seen)], 1))
            state.append(padded[:, step])
    return torch.stack(weights, dim=1)


class _Queries:
    """While it is entered, keeps each block's latest cross-attention queries, [images, texts x positions, D]."""

    def __init__(self, model: SEVLM):
        self.layers = [block.crossattention.q_attn for block in model.decoder.transformer.h]
        self.seen: list[Tensor | None] = [None] * len(self.layers)

    def __enter__(self) -> "_Queries":
        def keep(index: int):
            def hook(layer, inputs, output: Tensor) -> None:
                self.seen[index] = output

            return hook

        self.hooks = [layer.register_forward_hook(keep(index)) for index, layer in enumerate(self.layers)]
        return self

    def __exit__(self, *raised) -> None:
        for hook in self.hooks:
            hook.remove()


def _weights(model: SEVLM, state: DecodingState, block: int, queries: Tensor) -> Tensor:
    """Weights of every text's last position in one block, averaged over the heads: [T, G]."""
    keys, _ = state.image[block]  # [images, heads, G, d]
    texts = state.ids.shape[0]
    last = queries.reshape(texts, -1, queries.shape[-1])[:, -1]
    last = last.view(keys.shape[0], -1, keys.shape[1], keys.shape[3]).transpose(1, 2)  # [images, heads, texts, d]
    scores = model.decoder.transformer.h[block].crossattention.scaling * last.float() @ keys.float().mT
    return scores.softmax(dim=-1).mean(dim=1).flatten(0, 1)
