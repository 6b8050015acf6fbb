"""Functions of PyTorch's, computed another way where PyTorch's takes long, mostly on CPUs: the same values, less time.

The equations of the model are in the other files; nothing here is SEVLM's own.
"""

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from utils.constants import IGNORED_LABEL

LOGIT_ROWS = 512  # positions whose logits are held at a time
LEVELS = 2**16  # a mask's element is drawn from 16 random bits


def on_eager_cpu(x: Tensor) -> bool:
    """Whether x is computed on a CPU, and not traced for the compiler, which finds ways of its own."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero each element with probability p, in [0, 1), and multiply the others by 1 / (1 - p): F.dropout in training.

    On a CPU p is rounded to 1 / 65 536 and four elements share one random number: PyTorch's own masks are drawn an
    element at a time on AMD's processors, which takes longer there than the attention they are for.
    """
    dropped = round(p * LEVELS)
    if not on_eager_cpu(x) or not 0 < dropped < LEVELS:
        return F.dropout(x, p)
    numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    kept = (numbers.view(torch.int16)[: x.numel()] >= dropped - LEVELS // 2).view(x.shape)
    return x * kept * (LEVELS / (LEVELS - dropped))


class Dropout(nn.Dropout):
    """`dropout` as a module: active in training only."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training else x


def scaled_dot_product_attention(
    query: Tensor, keys: Tensor, values: Tensor, causal: bool, p: float, scale: float
) -> Tensor:
    """softmax(scale * query keys^T) values, with dropout p on the weights.

    query [N, heads, Q, d], keys and values [N, heads, K, d] -> [N, heads, Q, d]. With `causal` the queries are the last Q
    of the K positions. With dropout on a CPU in float32 the weights are computed here, as PyTorch's function would draw
    its masks one element at a time.
    """
    queries, size = query.shape[2], keys.shape[2]
    by_hand = p > 0 and query.dtype == torch.float32 and on_eager_cpu(query)
    mask = None
    if causal and queries > 1 and (by_hand or size > queries):
        mask = torch.ones(size, size, dtype=torch.bool, device=query.device).tril()[-queries:]
    if not by_hand:
        return F.scaled_dot_product_attention(
            query, keys, values, mask, p, is_causal=causal and size == queries, scale=scale
        )
    scores = query * scale @ keys.transpose(2, 3)
    scores = scores if mask is None else scores.masked_fill(~mask, -math.inf)
    return dropout(scores.softmax(dim=-1), p) @ values


def look_up(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of a table: [V, D], [...] -> [..., D].

    The gradient on a CPU is sparse: a dense one would be a table of zeros but for a few hundred rows, slow to fill.
    """
    return F.embedding(ids, table, sparse=on_eager_cpu(ids))


class OutputLayer(nn.Linear):
    """Hidden states [..., D] -> logits [..., V] of the vocabulary, tied to the word table.

    Computed words first, [V, N], which on a CPU takes two thirds of the time of nn.Linear's order.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        return (self.weight @ hidden.mT).mT


def linear_cross_entropy(hidden: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of logits = hidden embedding^T: [N, D], [V, D], targets [N] (-100: none) -> scalar."""
    return LinearCrossEntropy.apply(hidden, embedding, targets)


class LinearCrossEntropy(torch.autograd.Function):
    """Sum of the cross-entropies of `hidden @ embedding.T`, without ever holding all logits.

    50 261 logits per position are the largest tensors of a training step, and their softmax and its gradient are bound
    by memory, not by arithmetic. Positions are taken a few hundred at a time; each part's logits become its softmax's
    gradient in place, and that the gradients of its inputs, all in the forward pass. Losses are computed in float32.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
        device = hidden.device
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else hidden.dtype
        rows, table = hidden.to(dtype), embedding.to(dtype)
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_table = torch.empty_like(embedding, dtype=torch.float32) if needs_grad else None
        # one buffer for all parts: fresh memory of this size costs as much as the arithmetic
        buffer = torch.empty(len(table) * min(LOGIT_ROWS, len(rows)), device=device)
        total = torch.zeros((), device=device)
        with torch.autocast(device.type, enabled=False):
            for start in range(0, max(len(rows), 1), LOGIT_ROWS):
                part, wanted = rows[start : start + LOGIT_ROWS], targets[start : start + LOGIT_ROWS]
                kept = (wanted != IGNORED_LABEL).float()
                index = wanted.clamp(min=0)[None]
                # [V, N], words first: the matrix product is up to 1.6 times faster than into [N, V]
                logits = buffer[: len(table) * len(part)].view(len(table), len(part))
                if dtype == torch.float32:
                    torch.mm(table, part.T, out=logits)
                else:
                    logits.copy_(table @ part.T)
                largest = logits.amax(dim=0)
                logits -= largest
                of_target = logits.gather(0, index)[0]
                shares = logits.exp_()
                normaliser = shares.sum(dim=0)
                total += ((normaliser.log() - of_target) * kept).sum()
                if needs_grad:
                    # d loss / d logits = softmax - one-hot
                    grad = shares.mul_(kept / normaliser).scatter_add_(0, index, -kept[None]).to(dtype)
                    grad_hidden[start : start + LOGIT_ROWS] = grad.T @ table
                    if dtype == torch.float32:
                        torch.addmm(grad_table, grad, part, beta=int(start > 0), out=grad_table)
                    elif start == 0:
                        grad_table.copy_(grad @ part)
                    else:
                        grad_table += grad @ part
        if needs_grad:
            ctx.save_for_backward(grad_hidden, grad_table)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_table = ctx.saved_tensors
        # in place: a second copy of the table's gradient costs as much time as it does memory
        return grad_hidden.mul_(grad_output), grad_table.mul_(grad_output), None
