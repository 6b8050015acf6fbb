"""The two most probable tokens without all logits in float32: bfloat16 excludes most of the vocabulary first."""

import torch
from torch import Tensor
from torch.nn import functional as F

UNIT = 2.0**-8  # twice the largest relative error of rounding to bfloat16
UNIT_32 = 2.0**-23  # the same for float32
MOST = 0.1  # if more than this share of the vocabulary is left, all logits are computed


class ScreenedTopTwo:
    """Finds the two largest of the logits hidden table^T: hidden states [N, D] -> values [N, 2] and ids [N, 2].

    Reading the token table takes most of the output layer's time. In bfloat16 it has half the size, and CPUs that multiply
    bfloat16 do so several times faster. The result is that of float32 nevertheless. With h' and w' the rounded h and w, the
    sum h'w' is at most

        E = |h - h'| |w| + |h'| |w - w'| + D UNIT_32 |h'| |w|

    away from hw (Cauchy-Schwarz, and the rounding of a sum of D terms). The bfloat16 logit s' is that sum, rounded once more.
    So a token whose s' is more than 2 (E + UNIT (E + |s|)) below s, the second largest s', is not among the two. The float32
    logits of all others are computed.

    Args:
        table: the token table, float32 [V, D] on a CPU. It must not change.
    """

    def __init__(self, table: Tensor):
        self.table = table
        low = table.bfloat16()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(low, None)
        self.largest_norm = table.norm(dim=1).max()
        self.largest_rest = (table - low).norm(dim=1).max()

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        left = self.not_excluded(hidden)
        if not 2 <= len(left) <= MOST * len(self.table):  # none is left where a hidden state is not finite
            return tuple(F.linear(hidden, self.table).topk(2, dim=-1))
        values, places = F.linear(hidden, self.table[left]).topk(2, dim=-1)
        return values, left[places]

    def not_excluded(self, hidden: Tensor) -> Tensor:
        """Ids, in order, of the tokens that may be among the two of any row."""
        low = hidden.bfloat16()
        logits = torch.ops.mkldnn._linear_pointwise(low, self.packed, None, "none", [], "")
        second = logits.topk(2, dim=-1).values[:, 1].float()
        size = low.float().norm(dim=-1)
        error = (hidden - low).norm(dim=-1) * self.largest_norm
        error += size * (self.largest_rest + hidden.shape[-1] * UNIT_32 * self.largest_norm)
        least = second - 2 * (error + UNIT * (error + second.abs()))
        return (logits >= least.bfloat16()[:, None]).any(dim=0).nonzero().flatten()
