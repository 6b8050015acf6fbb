"""SEVLM: the image encoder, the VAD encoder, the explainer and the heads in one module with one `forward`."""

import torch
from torch import Tensor, nn

from models import losses
from models.config import SEVLMConfig
from models.decoder import Explainer
from models.heads import EmotionHead
from models.hub import ExportedModel
from models.image_encoder import ImageEncoder, ImageFeatures
from models.losses import LossCounts
from models.vad_encoder import VADEncoder


class SEVLM(nn.Module, ExportedModel):
    """The whole model. `save_pretrained` and `from_pretrained`: see models/hub.py.

    Args:
        config: decides which parts there are, and has the weights of the losses.
        decoder: the explainer, built with the same config.
        image_encoder: None if every batch contains cached features.
    """

    def __init__(self, config: SEVLMConfig, decoder: Explainer, image_encoder: ImageEncoder | None = None):
        super().__init__()
        self.config, self.image_encoder, self.decoder = config, image_encoder, decoder
        self.vad_encoder = self.emotion_head = None
        if config.use_VAD:
            dropout = decoder.config.embd_pdrop
            self.vad_encoder = VADEncoder(config.vad_layers, config.vad_heads, dropout, config.vad_causal)
        else:
            decoder.transformer.VAD_linear.requires_grad_(False)
        if config.use_emotion_loss:
            self.emotion_head = EmotionHead(config.encoder_dim, config.emotion_pooling)
        if config.label_tokens is not None:  # a buffer: made in `forward`, a GPU would wait for the host
            self.register_buffer("label_tokens", torch.tensor(config.label_tokens), persistent=False)

    def image_features(self, pixels: Tensor | None, cls: Tensor | None, grid: Tensor | None) -> ImageFeatures:
        """Encode pixels [B, 3, S, S], or convert cached float16 features cls [B, D] and grid [B, G, D] to float32."""
        if grid is not None:
            return ImageFeatures(cls.float(), grid.float())
        return self.image_encoder(pixels)

    def forward(
        self,
        input_ids: Tensor,
        segment_ids: Tensor,
        vad: Tensor,
        lm_positions: Tensor,
        lm_targets: Tensor,
        visual_negatives: Tensor | None = None,
        emotion_distribution: Tensor | None = None,
        image_weight: Tensor | None = None,
        counts: LossCounts | None = None,
        pixels: Tensor | None = None,
        cls: Tensor | None = None,
        grid: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the paper's training objective on B images with two texts each.

            loss = alpha * LM + cl_Loss_weight * CL + VAD_Loss_weight * VAD
                   (+ emotion_loss_weight * emotion loss + label_loss_weight * label loss)

        Rows 2i and 2i + 1 are the texts of image i, so T = 2B. The VAD head at position p predicts the lexicon VAD of
        token p + 1, for p + 1 >= h = len_prefix + emotion_span.

        If the config has `label_tokens`, the first tokens of the nine emotions, the label loss is added: at position
        `label_position`, which predicts the emotion, it pulls their probabilities towards the annotators' distribution.

        Args:
            input_ids, segment_ids: [T, L].
            vad: lexicon VAD [T, L, 3] in [-1, 1].
            lm_positions: [N], flat indices into [T, L] of the positions that predict a labelled token.
            lm_targets: [N], ids of these tokens; -100 for entries that pad the array.
            visual_negatives: [T], for each text the row whose explanation is its visual negative (another image's).
                None if the batch has only one image.
            emotion_distribution: [B, 9], the annotators' distribution, sum 1.
            image_weight: [B], 0 for images that do not count (default: all 1).
            counts: divisors of the losses (default: this batch's counts).
            pixels: [B, 3, S, S], normalised; None if cached features are given.
            cls, grid: cached features [B, D] and [B, G, D]; None if pixels are given.

        Returns:
            "loss", the weighted sum, and each of its terms before its weight, by name: scalars.
        """
        config, counts = self.config, counts or LossCounts()
        image = self.image_features(pixels, cls, grid)
        vad_features = None if self.vad_encoder is None else self.vad_encoder(vad)
        hidden = self.decoder(input_ids, segment_ids, image, vad_features)
        text_weight = None if image_weight is None else image_weight.repeat_interleave(2)

        table = self.decoder.transformer.wte.output_weight()
        predicting = hidden.flatten(0, 1)[lm_positions]
        terms = {"lm_loss": (config.alpha, losses.lm_loss(predicting, table, lm_targets, counts.tokens))}
        if config.use_cl_loss:
            scores = self.contrastive_scores(image, hidden, input_ids, segment_ids, visual_negatives)
            loss = losses.contrastive_loss(*scores, weight=text_weight, count=counts.texts)
            terms["contrastive_loss"] = config.cl_Loss_weight, loss
        if config.use_VAD_loss:
            start = config.fusion_start
            predicted = self.decoder.VAD_head(hidden[:, start - 1 : -1])
            loss = losses.vad_loss(predicted, vad[:, start:], text_weight, counts.vad_positions)
            terms["vad_loss"] = config.VAD_Loss_weight, loss
        if self.emotion_head is not None:
            logits = self.emotion_head(image)
            loss = losses.emotion_loss(logits, emotion_distribution, image_weight, counts.images)
            terms["emotion_loss"] = config.emotion_loss_weight, loss
        if config.label_tokens is not None:
            logits = self.decoder.lm_head(hidden[:, config.label_position])
            distribution = emotion_distribution.repeat_interleave(2, dim=0)
            loss = losses.label_loss(logits, self.label_tokens, distribution, text_weight, counts.texts)
            terms["label_loss"] = config.label_loss_weight, loss
        total = sum(weight * loss for weight, loss in terms.values())
        return {"loss": total} | {name: loss for name, (_, loss) in terms.items()}

    def contrastive_scores(
        self,
        image: ImageFeatures,
        hidden: Tensor,
        input_ids: Tensor,
        segment_ids: Tensor,
        visual_negatives: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The scores s+, s-1 and s-2 that the paper's contrastive head gives to each text, [T] each.

        The image and the emotion are always the text's own. The explanation is its own (s+), that of the other text of
        the same image (s-1), or that of another image (s-2; None without `visual_negatives`).
        """
        emotion, explanation = self.pool_spans(hidden, input_ids, segment_ids)
        pooled_image = self.decoder.transformer.project_image(image).grid.mean(dim=1)
        pooled_image = pooled_image.repeat_interleave(2, dim=0)
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        negatives = [rows, rows ^ 1] + ([] if visual_negatives is None else [visual_negatives])
        scores = self.decoder.sim_mlp(
            pooled_image.repeat(len(negatives), 1),
            emotion.repeat(len(negatives), 1),
            explanation[torch.cat(negatives)],
        ).split(hidden.shape[0])
        return scores[0], scores[1], scores[2] if visual_negatives is not None else None

    def pool_spans(self, hidden: Tensor, input_ids: Tensor, segment_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The emotion and explanation inputs of the paper's contrastive head: mean final hidden states, [T, D] each.

        In the paper, the emotion is the mean over positions k .. h - 1 and the explanation the mean over h .. L - 1,
        padding included (k = len_prefix, h = k + emotion_span). With `masked_pooling` the emotion ends where the
        explanation segment begins, and padding is left out.
        """
        prefix, span_end = self.config.len_prefix, self.config.fusion_start
        if not self.config.masked_pooling:
            return hidden[:, prefix:span_end].mean(dim=1), hidden[:, span_end:].mean(dim=1)
        explanation = segment_ids == segment_ids[:, -1:]  # the last position, padding or not, is in that segment
        emotion = ~explanation
        emotion[:, :prefix] = False
        explanation = explanation & (input_ids != self.decoder.config.pad_token_id)
        return tuple(
            torch.einsum("tld,tl->td", hidden, mask.to(hidden.dtype)) / mask.sum(dim=1, keepdim=True).clamp(min=1)
            for mask in (emotion, explanation)
        )
