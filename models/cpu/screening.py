"""The two most probable tokens without all logits in float32: bfloat16 excludes most of the vocabulary first."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

UNIT = 2.0**-8  # the largest relative error of rounding to bfloat16, which has 8 significant bits
UNIT_32 = 2.0**-24  # the same for float32
MAX_LEFT = 0.1  # if more than this fraction of the vocabulary is left, all logits are computed


class ScreenedTopTwo:
    """Finds the two largest of the logits hidden table^T: hidden states [N, D] -> values [N, 2] and ids [N, 2].

    Reading the token table takes most of the output layer's time. In bfloat16 it has half the size, and CPUs that multiply
    bfloat16 do so several times faster. The result is that of float32 nevertheless. Let h' and w' be the rounded h and w, and c
    the sum h'w', whose products are exact in float32. It is at most

        E = |h - h'| |w| + |h'| |w - w'| + 4 D UNIT_32 |h'| |w|

    away from the logit that float32 gives for hw: by Cauchy-Schwarz, and as each of the two sums of D terms has a rounding error
    of little more than D UNIT_32 |h| |w|. The product gives r(c), c rounded to bfloat16, with |r(c) - c| <= UNIT |r(c)|. Let s be the
    second largest of these. Two tokens then have c >= s - UNIT |s|, so that at least two logits, and the two largest, are no
    smaller than s - UNIT |s| - E. The c of these two is at least s - UNIT |s| - 2 E, and, as rounding keeps the order, their r(c)
    is at least r(s - UNIT |s| - 2 E). All tokens below are excluded; the float32 logits of the others are computed. In the code
    both parts of the distance are a little larger, as it is itself computed in float32.

    Args:
        table: the token table, float32 [V, D] on a CPU. It must not change.
    """

    def __init__(self, table: Tensor):
        self.table = table
        low = table.bfloat16()
        self.product = bfloat16_product(low)
        self.largest_norm = table.norm(dim=1).max()
        self.largest_rest = (table - low).norm(dim=1).max()

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        left = self.not_excluded(hidden)
        if not 2 <= len(left) <= MAX_LEFT * len(self.table):  # none is left if a hidden state is not finite
            return tuple(F.linear(hidden, self.table).topk(2, dim=-1))
        values, places = F.linear(hidden, self.table[left]).topk(2, dim=-1)
        return values, left[places]

    def not_excluded(self, hidden: Tensor) -> Tensor:
        """Ids, in order, of the tokens that may be among the two of any row."""
        low = hidden.bfloat16()
        logits = self.product(low)
        second = logits.topk(2, dim=-1).values[:, 1].float()
        size = low.float().norm(dim=-1)
        error = (hidden - low).norm(dim=-1) * self.largest_norm
        error += size * (self.largest_rest + 4 * hidden.shape[-1] * UNIT_32 * self.largest_norm)
        least = second - 2 * (error + UNIT * (error + second.abs()))
        return (logits >= least.bfloat16()[:, None]).any(dim=0).nonzero().flatten()


def bfloat16_product(table: Tensor) -> Callable[[Tensor], Tensor]:
    """The product with a bfloat16 table [V, D]: bfloat16 [N, D] -> [N, V], summed in float32 and rounded once."""
    packed = torch.ops.mkldnn._reorder_linear_weight(table, None)
    return lambda hidden: torch.ops.mkldnn._linear_pointwise(hidden, packed, None, "none", [], "")
