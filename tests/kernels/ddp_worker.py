"""One rank of `test_ops.test_two_ranks_train_as_one`: ``python ddp_worker.py RANK FILE``, not collected as a test."""

import sys

import torch
import torch.distributed as dist
from torch import nn

from catvae.kernels import mixture_kl

K, D, HIDDEN = 4, 8, 12


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(HIDDEN, 2 * D + K)
        self.E, self.F = nn.Parameter(torch.randn(K, D)), nn.Parameter(torch.randn(K, D))
        self.register_buffer("prior", torch.randn(K, D))

    def forward(self, x):
        m, v, logits = self.linear(x).split([D, D, K], dim=1)
        out = mixture_kl(m, v, self.E, self.F, self.prior, logits)
        return (out.kl + out.neg_entropy) / len(x)


def main() -> None:
    rank, file = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.manual_seed(0)
    head, x = Head(), torch.randn(20, HIDDEN)
    parallel = nn.parallel.DistributedDataParallel(head)
    parallel(x[rank * 10 : (rank + 1) * 10]).backward()
    found = [p.grad.clone() for p in head.parameters()]
    head.zero_grad()
    head(x).backward()
    for gradient, parameter in zip(found, head.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-4)
    print("gradients agree")
    dist.barrier()  # gloo aborts a rank whose peer is gone before it
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
