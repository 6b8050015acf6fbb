"""The paper's cross-attention explainer: GPT-2 that attends to the image grid in every block.

It contains the fusion step of the paper's VAD embedding: VAD encoder outputs are fused into the explanation's tokens.

Shapes: B images, T texts, L tokens per text, G grid patches, D the model width, V the vocabulary size.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention, GPT2Block, GPT2Model, GPT2PreTrainedModel

from models.config import SEVLMConfig
from models.cpu.kernels import Dropout, OutputLayer, TiedEmbedding, scaled_dot_product_attention
from models.heads import ContrastiveHead, VADHead
from models.image_encoder import ImageFeatures
from models.vad_encoder import VAD_WIDTH

KeysValues = tuple[Tensor, Tensor]  # each [rows, heads, positions, D / heads]


def attend(attention: GPT2Attention, query: Tensor, keys_values: KeysValues, causal: bool) -> Tensor:
    """Scaled dot-product attention, then the output projection and dropout of one GPT-2 attention module.

    Args:
        attention: the module whose dropout rates, scale and output projection are used.
        query: [N, Q, D].
        keys_values: [N, heads, K, d] each, d = D / heads.
        causal: the queries are the last Q of the K positions, and no query sees a later position.

    Returns:
        [N, Q, D].
    """
    query = query.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    dropout = attention.attn_dropout.p if attention.training else 0.0
    attended = scaled_dot_product_attention(query, *keys_values, causal, dropout, attention.scaling)
    return attention.resid_dropout(attention.c_proj(attended.transpose(1, 2).flatten(2)))


class ExplainerBlock(GPT2Block):
    """A GPT-2 block with cross-attention; it takes precomputed image keys and values, one set per image."""

    def __init__(self, config: GPT2Config, layer_idx: int):
        super().__init__(config, layer_idx=layer_idx)
        if config.activation_function == "gelu_new":
            self.mlp.act = nn.GELU(approximate="tanh")  # the same function, one memory pass instead of eight
        self.attn.resid_dropout = Dropout(config.resid_pdrop)
        self.crossattention.resid_dropout = Dropout(config.resid_pdrop)
        self.mlp.dropout = Dropout(config.resid_pdrop)

    def image_keys_values(self, grid: Tensor) -> KeysValues:
        """Project the grid [B, G, D] to this block's cross-attention keys and values."""
        return _split_heads(self.crossattention, self.crossattention.c_attn(grid))

    def attend_to_image(self, query: Tensor, image: KeysValues) -> Tensor:
        """Cross-attention without a mask: query [B, Q, D], keys and values of the B images -> [B, Q, D]."""
        return attend(self.crossattention, query, image, causal=False)

    def forward(
        self, x: Tensor, image: KeysValues, past: KeysValues | None = None, last_only: bool = False
    ) -> tuple[Tensor, KeysValues]:
        """One block of the paper's cross-attention explainer; cross-attention comes after self-attention.

            x = x + attn(ln_1(x))
            x = x + crossattention(ln_cross_attn(x), grid)
            x = x + mlp(ln_2(x))

        No mask hides padding: self-attention is causal and padding is on the right.

        Args:
            x: [T, L, D]; the n texts of an image are adjacent rows.
            image: cross-attention keys and values of the T / n images, [T / n, heads, G, d] each.
            past: self-attention keys and values of the positions before x (decoding only).
            last_only: return only the last position (used in the last block while decoding).

        Returns:
            x, [T, L, D] or, with `last_only`, [T, 1, D]; and the self-attention keys and values of all positions so
            far, [T, heads, positions, d] each.
        """
        query, key_value = self.attn.c_attn(self.ln_1(x)).split([x.shape[2], 2 * x.shape[2]], dim=2)
        keys_values = _split_heads(self.attn, key_value)
        if past is not None:
            keys_values = tuple(torch.cat(pair, dim=2) for pair in zip(past, keys_values, strict=True))
        if last_only:
            x, query = x[:, -1:], query[:, -1:]
        x = x + attend(self.attn, query, keys_values, causal=True)

        # Cross-attention has no mask, so the n texts of an image can share one sequence of queries: [T / n, n L, D].
        query = self.crossattention.q_attn(self.ln_cross_attn(x)).reshape(len(image[0]), -1, x.shape[2])
        x = x + self.attend_to_image(query, image).view_as(x)

        return x + self.mlp(self.ln_2(x)), keys_values


class ClipProject(nn.Module):
    """Turn the class token into len_prefix prefix embeddings: cls [T, D] -> [T, len_prefix, D].

    clip_project(cls): Linear D -> D len_prefix / 2, tanh, Linear -> D len_prefix. The paper uses no prefix
    (len_prefix = 0).
    """

    def __init__(self, width: int, len_prefix: int):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(width, width * len_prefix // 2),
            nn.Tanh(),
            nn.Linear(width * len_prefix // 2, width * len_prefix),
        )
        self.len_prefix = len_prefix

    def forward(self, cls: Tensor) -> Tensor:
        return self.model(cls).unflatten(-1, (self.len_prefix, -1))


class ExplainerTransformer(GPT2Model):
    """GPT-2 without its output layer: embeddings with VAD fusion, blocks with cross-attention, ln_f.

    `embed` is the fusion step of the paper's VAD embedding; the blocks are the paper's cross-attention explainer.
    """

    def __init__(self, config: GPT2Config, settings: SEVLMConfig):
        GPT2PreTrainedModel.__init__(self, config)  # GPT2Model.__init__ would first build standard blocks
        self.wte = TiedEmbedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(ExplainerBlock(config, layer_idx=index) for index in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.VAD_linear = nn.Linear(config.n_embd + VAD_WIDTH, config.n_embd)
        self.len_prefix, self.fusion_start = settings.len_prefix, settings.fusion_start
        if settings.len_prefix > 0:
            self.clip_project = ClipProject(config.n_embd, settings.len_prefix)
        self.projects_image = settings.encoder_dim != config.n_embd  # not in the paper, where both are 768
        if self.projects_image:
            self.image_projection = nn.Linear(settings.encoder_dim, config.n_embd)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: transformers would not scale a subclass's c_proj layers. Explainer.draw_weights does."""

    def project_image(self, image: ImageFeatures) -> ImageFeatures:
        """Project image features to the decoder's width if the encoder's differs (not in the paper).

        cls [B, E] -> [B, D], grid [B, G, E] -> [B, G, D].
        """
        if not self.projects_image:
            return image
        return ImageFeatures(self.image_projection(image.cls), self.image_projection(image.grid))

    def embed(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        vad: Tensor | None,
        cls: Tensor | None = None,
        start: int = 0,
    ) -> Tensor:
        """Input embeddings with the fusion step of the paper's VAD embedding.

            e = dropout(wte(token) + wpe(position) + wte(segment))
            e = VAD_linear([e ; vad])   at positions >= h = len_prefix + emotion_span; VAD_linear: D + 3 -> D

        Positions before h are not fused. The first len_prefix positions take clip_project(cls) in place of wte(token).

        Args:
            input_ids: [T, L].
            segment_ids: [T, L], ids of <prefix>, <emotion> or <explanation>; embedded with the token table wte.
            vad: VAD encoder output [T, L, 3], or None for no fusion.
            cls: [T, D], read only when len_prefix > 0 and start is 0.
            start: position of the first column (decoding).

        Returns:
            [T, L, D].
        """
        words, segments = self.wte(torch.stack([input_ids, segment_ids]))
        if self.len_prefix > 0 and start == 0:
            words = torch.cat([self.clip_project(cls).to(words.dtype), words[:, self.len_prefix :]], dim=1)
        positions = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)
        x = self.drop(words + self.wpe(positions) + segments)
        span_end = max(self.fusion_start - start, 0)
        if vad is None or span_end >= x.shape[1]:
            return x
        fused = self.VAD_linear(torch.cat([x[:, span_end:], vad[:, span_end:].to(x.dtype)], dim=-1))
        return torch.cat([x[:, :span_end].to(fused.dtype), fused], dim=1)

    def image_keys_values(self, grid: Tensor) -> list[KeysValues]:
        """Project the grid [B, G, D] to every block's cross-attention keys and values, [B, heads, G, d] each."""
        grid = grid.contiguous()  # the grid is a slice of the encoder's tokens
        return [block.image_keys_values(grid) for block in self.h]

    def forward(
        self, x: Tensor, image: list[KeysValues], past: list[KeysValues] | None = None, last_only: bool = False
    ) -> tuple[Tensor, list[KeysValues]]:
        """Run all blocks and ln_f.

        Args:
            x: embeddings [T, L, D].
            image: cross-attention keys and values of each block.
            past: self-attention keys and values of the positions before x, one pair per block (decoding only).
            last_only: compute the last block at the last position only.

        Returns:
            final hidden states, [T, L, D] or, with `last_only`, [T, 1, D]; and every block's self-attention keys and
            values.
        """
        present = []
        for index, block in enumerate(self.h):
            is_last = last_only and index + 1 == len(self.h)
            x, keys_values = block(x, image[index], None if past is None else past[index], is_last)
            present.append(keys_values)
        return self.ln_f(x), present


class Explainer(GPT2LMHeadModel):
    """The transformer with its tied output layer, the contrastive head and the VAD head.

    Published checkpoints have these parts, under these names, in `nle_model_<name>/`.

    Args:
        config: sizes of GPT-2.
        settings: decide which heads and projections there are.

    Attributes:
        origin: one line that says which weights were loaded and which were drawn; empty for those of a checkpoint.
    """

    origin = ""

    _keys_to_ignore_on_load_unexpected = [r"attn\.bias", r"attention\.bias", r"masked_bias"]

    def __init__(self, config: GPT2Config, settings: SEVLMConfig):
        # GPT2LMHeadModel.__init__ would first build a standard GPT2Model
        GPT2PreTrainedModel.__init__(self, config)
        self.transformer = ExplainerTransformer(config, settings)
        self.lm_head = OutputLayer(config.n_embd, config.vocab_size, bias=False)
        if settings.use_cl_loss:
            self.sim_mlp = ContrastiveHead(config.n_embd)
        if settings.use_VAD_loss:
            self.VAD_head = VADHead(config.n_embd)
        self.post_init()
        if self.lm_head.weight.device.type != "meta":  # from_pretrained fills meta tensors from a file
            self.draw_weights()

    _init_weights = ExplainerTransformer._init_weights

    @torch.no_grad()
    def draw_weights(self, names: Iterable[str] | None = None) -> None:
        """Draw initial weights as GPT-2 does.

        Weights are drawn from N(0, r), r being the config's initializer_range (0.02 for distilgpt2). Every c_proj,
        which ends a residual branch, is drawn from N(0, r / sqrt(2 blocks)). Biases are 0 and layer norms the identity.

        Args:
            names: the parameters to draw; None draws all of them.
        """
        wanted = None if names is None else set(names)
        std = self.config.initializer_range
        for name, parameter in self.named_parameters():
            if wanted is not None and name not in wanted:
                continue
            if name.endswith("bias"):
                parameter.zero_()
            elif ".ln_" in name:
                parameter.fill_(1.0)
            elif name.endswith("c_proj.weight"):
                parameter.normal_(0.0, std / math.sqrt(2 * self.config.n_layer))
            else:
                parameter.normal_(0.0, std)

    @torch.no_grad()
    def resize_vocabulary(self, size: int, drawn: list[int]) -> None:
        """Resize the token table to `size` rows. The rows `drawn` are drawn from N(0, r); others keep their values."""
        self.resize_token_embeddings(size, mean_resizing=False)
        table = self.transformer.wte.weight
        table[drawn] = table.new_empty(len(drawn), table.shape[1]).normal_(0.0, self.config.initializer_range)

    def top_two(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The two most probable tokens: final hidden states [N, D] -> logits, float32 [N, 2], and ids [N, 2]."""
        return tuple(self.lm_head(hidden).float().topk(2, dim=-1))

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        image: ImageFeatures,
        vad: Tensor | None = None,
    ) -> Tensor:
        """Compute the final hidden states of texts that are given in full (teacher forcing).

        Args:
            input_ids, segment_ids: [T, L], T = n B; the n texts of an image are adjacent rows.
            image: features of the B images.
            vad: VAD encoder output [T, L, 3], or None for no fusion.

        Returns:
            [T, L, D], after ln_f.
        """
        image = self.transformer.project_image(image)
        texts_per_image = input_ids.shape[0] // image.grid.shape[0]
        cls = image.cls.repeat_interleave(texts_per_image, dim=0) if self.transformer.len_prefix > 0 else None
        x = self.transformer.embed(input_ids, segment_ids, vad, cls)
        return self.transformer(x, self.transformer.image_keys_values(image.grid))[0]


def _split_heads(attention: GPT2Attention, keys_values: Tensor) -> KeysValues:
    """[N, K, 2 D] -> keys and values, [N, heads, K, d] each."""
    keys, values = keys_values.unflatten(-1, (2, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return keys, values
