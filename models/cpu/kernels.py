"""Faster versions of PyTorch functions, mostly for CPUs. They compute the same values.

Nothing here is specific to SEVLM; the model's equations are in the other files.
"""

import contextlib
import math

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from utils.constants import IGNORED_LABEL

LOGIT_ROWS = 512  # positions whose logits are in memory at the same time
LEVELS = 2**16  # each element of a dropout mask uses 16 random bits


def on_eager_cpu(x: Tensor) -> bool:
    """Whether x is on a CPU and is not traced by torch.compile, which does its own optimisation."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def dropout(x: Tensor, p: float) -> Tensor:
    """F.dropout in training mode: zero each element with probability p in [0, 1), scale the others by 1 / (1 - p).

    On a CPU, p is rounded to a multiple of 1 / 65 536, and one 64-bit random number serves four elements. On AMD CPUs
    PyTorch draws its masks element by element, which takes longer than the attention itself.
    """
    dropped = round(p * LEVELS)
    if not on_eager_cpu(x) or not 0 < dropped < LEVELS:
        return F.dropout(x, p)
    numbers = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    mask = (numbers.view(torch.int16)[: x.numel()] >= dropped - LEVELS // 2).view(x.shape)
    return x * mask * (LEVELS / (LEVELS - dropped))


class Dropout(nn.Dropout):
    """`dropout` as a module; active only in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training else x


def scaled_dot_product_attention(
    query: Tensor, keys: Tensor, values: Tensor, causal: bool, p: float, scale: float
) -> Tensor:
    """softmax(scale * query keys^T) values, with dropout p on the weights.

    query [N, heads, Q, d], keys and values [N, heads, K, d] -> [N, heads, Q, d]. With `causal`, the queries are the
    last Q of the K positions, and no query sees a later position. With dropout on a CPU in float32 or bfloat16 the attention
    weights are computed here, because PyTorch's function would draw its masks element by element. Their softmax is computed
    in float32.
    """
    queries, size = query.shape[2], keys.shape[2]
    explicit = p > 0 and query.dtype in (torch.float32, torch.bfloat16) and on_eager_cpu(query)
    mask = None
    if causal and queries > 1 and (explicit or size > queries):
        mask = torch.ones(size, size, dtype=torch.bool, device=query.device).tril()[-queries:]
    if not explicit:
        return F.scaled_dot_product_attention(
            query, keys, values, mask, p, is_causal=causal and size == queries, scale=scale
        )
    scores = (query * scale @ keys.transpose(2, 3)).float()
    scores = scores if mask is None else scores.masked_fill(~mask, -math.inf)
    return dropout(scores.softmax(dim=-1), p).to(values.dtype) @ values


class TiedEmbedding(nn.Embedding):
    """The token table, whose weight the output layer uses as well: ids [...] -> [..., D].

    On a CPU the gradient of the look-up is sparse: only a few hundred of the V rows are non-zero, and filling a dense one
    is slow. It is added in place to the output layer's dense gradient; autograd would copy that one (154 MB with GPT-2's
    vocabulary).
    """

    _output_alias: Tensor | None = None

    def forward(self, ids: Tensor) -> Tensor:
        table = self.weight
        if on_eager_cpu(table) and table.requires_grad and torch.is_grad_enabled():
            table, self._output_alias = TwoUses.apply(table)
        return F.embedding(ids, table, sparse=on_eager_cpu(ids))

    def output_weight(self) -> Tensor:
        """The table [V, D] for the output layer, after the look-up of the same step."""
        table, self._output_alias = self._output_alias, None
        return self.weight if table is None else table


class TwoUses(torch.autograd.Function):
    """Two aliases of a table, for the look-up and the output layer; the first one's gradient is added in place to the second's."""

    @staticmethod
    def forward(ctx, table: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return table.view_as(table), table.view_as(table)

    @staticmethod
    @once_differentiable
    def backward(ctx, lookup_grad: Tensor | None, output_grad: Tensor | None) -> Tensor | None:
        if lookup_grad is None or output_grad is None:
            return output_grad if lookup_grad is None else lookup_grad
        return output_grad.add_(lookup_grad)


class OutputLayer(nn.Linear):
    """The output layer, tied to the token table: hidden states [..., D] -> logits [..., V].

    The product is computed as [V, N] and transposed. On a CPU this takes two thirds of nn.Linear's time.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        return (self.weight @ hidden.mT).mT


def linear_cross_entropy(hidden: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies of the logits hidden embedding^T: [N, D], [V, D], targets [N] -> scalar.

    Targets of -100 are ignored.
    """
    return LinearCrossEntropy.apply(hidden, embedding, targets)


class LinearCrossEntropy(torch.autograd.Function):
    """Sum of the cross-entropies of `hidden @ embedding.T`, without holding all logits in memory.

    The logits (50 261 per position) are the largest tensors of a training step; their softmax and its gradient are
    bound by memory, not by arithmetic. The forward pass therefore takes LOGIT_ROWS positions at a time. It turns their
    logits in place into the gradient of the loss, and computes the gradients of both inputs from it. The backward pass
    only scales these. The loss is computed in float32.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, embedding: Tensor, targets: Tensor) -> Tensor:
        device = hidden.device
        autocast = device.type != "meta" and torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else hidden.dtype
        rows, table = hidden.to(dtype), embedding.to(dtype)
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_hidden = torch.empty_like(hidden) if needs_grad else None
        grad_table = torch.empty_like(embedding, dtype=torch.float32) if needs_grad else None
        # one buffer for all parts: allocating this much memory costs as much time as the arithmetic
        buffer = torch.empty(len(table) * min(LOGIT_ROWS, len(rows)), device=device)
        total = torch.zeros((), device=device)
        with torch.autocast(device.type, enabled=False) if autocast else contextlib.nullcontext():
            for start in range(0, max(len(rows), 1), LOGIT_ROWS):
                part, part_targets = rows[start : start + LOGIT_ROWS], targets[start : start + LOGIT_ROWS]
                weight = (part_targets != IGNORED_LABEL).float()
                index = part_targets.clamp(min=0)[None]
                # the product is up to 1.6 times faster as [V, N] than as [N, V]
                logits = buffer[: len(table) * len(part)].view(len(table), len(part))
                if dtype == torch.float32:
                    torch.mm(table, part.T, out=logits)
                else:
                    logits.copy_(table @ part.T)
                largest = logits.amax(dim=0)
                logits -= largest
                target_logits = logits.gather(0, index)[0]
                exponentials = logits.exp_()
                normaliser = exponentials.sum(dim=0)
                total += ((normaliser.log() - target_logits) * weight).sum()
                if needs_grad:
                    # d loss / d logits = softmax - one-hot
                    grad = exponentials.mul_(weight / normaliser).scatter_add_(0, index, -weight[None]).to(dtype)
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
        # in place: a second copy of the table's gradient would cost memory and time
        return grad_hidden.mul_(grad_output), grad_table.mul_(grad_output), None
