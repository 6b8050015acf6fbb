"""SEVLM: the image encoder, the VAD encoder, the explainer and the heads in one module with one `forward`."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from models import losses
from models.decoder import Explainer
from models.heads import EmotionHead
from models.image_encoder import ImageEncoder, ImageFeatures
from models.kernels import two_uses
from models.shared_model import SharedModel
from models.vad_encoder import VADEncoder


@dataclass
class SEVLMOutput(ModelOutput):
    """The losses of one training step: scalars, or None for a loss that is switched off. `loss` is the weighted sum."""

    loss: Tensor | None = None
    lm_loss: Tensor | None = None
    contrastive_loss: Tensor | None = None
    vad_loss: Tensor | None = None
    emotion_loss: Tensor | None = None
    label_loss: Tensor | None = None


class SEVLM(nn.Module, SharedModel):
    """The whole model. `save_pretrained` and `from_pretrained`: see models/shared_model.py.

    Args:
        image_encoder: None if every batch contains cached features.
        decoder: the explainer; its config says which heads it has.
        vad_encoder: None for a model without VAD fusion (`--no-use_VAD`).
        emotion_head: 9-way head on the image, or None (not in the paper).
        weights: loss weights alpha, cl_Loss_weight, VAD_Loss_weight, emotion_loss_weight.
        masked_pooling: leave padding out of the contrastive means, and end the emotion span where the explanation
            segment begins instead of after emotion_span positions (not in the paper).
        label_weight: label_loss_weight (not in the paper).
    """

    def __init__(
        self,
        image_encoder: ImageEncoder | None,
        decoder: Explainer,
        vad_encoder: VADEncoder | None,
        emotion_head: EmotionHead | None = None,
        weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
        masked_pooling: bool = False,
        label_weight: float = 1.0,
    ):
        super().__init__()
        self.image_encoder, self.decoder = image_encoder, decoder
        self.vad_encoder, self.emotion_head = vad_encoder, emotion_head
        self.weights, self.masked_pooling, self.label_weight = weights, masked_pooling, label_weight
        if vad_encoder is None:
            decoder.transformer.VAD_linear.requires_grad_(False)  # unused without a VAD encoder

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
        counts: Tensor | None = None,
        pixels: Tensor | None = None,
        cls: Tensor | None = None,
        grid: Tensor | None = None,
    ) -> SEVLMOutput:
        """Compute the paper's training objective on B images with two texts each.

            loss = alpha * LM + cl_Loss_weight * CL + VAD_Loss_weight * VAD
                   (+ emotion_loss_weight * emotion loss + label_loss_weight * label loss)

        Rows 2i and 2i + 1 are the texts of image i, so T = 2B. The VAD head at position p predicts the lexicon VAD of
        token p + 1, for p + 1 >= h = len_prefix + emotion_span.

        The label loss is on where the decoder's config has `label_tokens`, the first tokens of the nine emotions: at position
        `label_position`, which predicts the emotion, their probabilities are pulled to the annotators' distribution.

        Args:
            input_ids, segment_ids: [T, L].
            vad: lexicon VAD [T, L, 3] in [-1, 1].
            lm_positions: [N], flat indices into [T, L] of the positions that predict a labelled token.
            lm_targets: [N], ids of these tokens; -100 for entries that pad the array.
            visual_negatives: [T], for each text the row whose explanation is its visual negative (another image's).
                None if the batch has only one image.
            emotion_distribution: [B, 9], shares of the annotators' votes, sum 1.
            image_weight: [B], 0 for images that do not count (default: all 1).
            counts: [4], divisors of the LM, contrastive, VAD and emotion sums (default: this batch's counts).
            pixels: [B, 3, S, S], normalised; None if cached features are given.
            cls, grid: cached features [B, D] and [B, G, D]; None if pixels are given.
        """
        image = self.image_features(pixels, cls, grid)
        vad_features = None if self.vad_encoder is None else self.vad_encoder(vad)
        table, output_table = two_uses(self.decoder.lm_head.weight)
        hidden = self.decoder(input_ids, segment_ids, image, vad_features, table)
        counts = [None] * 4 if counts is None else counts.unbind()
        alpha, contrastive_weight, vad_weight, emotion_weight = self.weights
        config = self.decoder.config
        weight = None if image_weight is None else image_weight.repeat_interleave(2)

        predicting = hidden.flatten(0, 1)[lm_positions]
        output = SEVLMOutput(lm_loss=losses.lm_loss(predicting, output_table, lm_targets, counts[0]))
        output.loss = alpha * output.lm_loss

        if config.use_cl_loss:
            scores = self.contrastive_scores(image, hidden, input_ids, segment_ids, visual_negatives)
            output.contrastive_loss = losses.contrastive_loss(*scores, weight=weight, count=counts[1])
            output.loss = output.loss + contrastive_weight * output.contrastive_loss
        if config.use_VAD_loss:
            start = config.len_prefix + config.emotion_span
            predicted = self.decoder.VAD_head(hidden[:, start - 1 : -1])
            output.vad_loss = losses.vad_loss(predicted, vad[:, start:], counts[2], weight)
            output.loss = output.loss + vad_weight * output.vad_loss
        if self.emotion_head is not None:
            logits = self.emotion_head(image)
            output.emotion_loss = losses.emotion_loss(logits, emotion_distribution, image_weight, counts[3])
            output.loss = output.loss + emotion_weight * output.emotion_loss
        if getattr(config, "label_tokens", None) is not None:
            tokens = torch.tensor(config.label_tokens, device=hidden.device)
            logits = self.decoder.lm_head(hidden[:, config.label_position])
            shares = emotion_distribution.repeat_interleave(2, dim=0)
            output.label_loss = losses.label_loss(logits, tokens, shares, weight, counts[1])
            output.loss = output.loss + self.label_weight * output.label_loss
        return output

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
        pooled_image = pooled_image.repeat_interleave(hidden.shape[0] // pooled_image.shape[0], dim=0)
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
        prefix = self.decoder.config.len_prefix
        if not self.masked_pooling:
            span_end = prefix + self.decoder.config.emotion_span
            return hidden[:, prefix:span_end].mean(dim=1), hidden[:, span_end:].mean(dim=1)
        explanation = segment_ids == segment_ids[:, -1:]
        emotion = ~explanation
        emotion[:, :prefix] = False
        explanation = explanation & (input_ids != self.decoder.config.pad_token_id)
        return tuple(
            torch.einsum("tld,tl->td", hidden, mask.to(hidden.dtype)) / mask.sum(dim=1, keepdim=True).clamp(min=1)
            for mask in (emotion, explanation)
        )
