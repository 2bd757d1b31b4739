"""Nearest class mean: remember the mean of each class, answer with the nearest one.

    mean of class c     mu_c = 1/n_c sum of the features f(x) of its n_c examples
    output of class c   -|f(x) - mu_c|^2        the largest is the nearest

A mean is a sum and a count, and sums do not care about order: tasks may come in any order, one example at a time, and
the result is the same to the last rounding. Such a classifier cannot forget, as long as its features f stay.

Source   Mensink et al. 2013, Distance-based image classification; Rebuffi et al. 2017, iCaRL (for class-incremental
         learning).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class NearestClassMean(nn.Module):
    """A classifier that is taught by adding up: `add` examples, then call it like any model.

    It has no weights to train; its sums and counts are buffers, so `state_dict` and `to` work as usual.

    Args     classes: K, how many outputs. features: D, the length of f(x). extract: f, a module or function that maps
             (B, ...) to (B, D), never trained here; None takes x itself, for example pixels. dtype, device: of the
             sums.
    Raises   ValueError if classes or features is below 1.
    Source   Mensink et al. 2013.
    """

    sums: Tensor
    counts: Tensor

    def __init__(
        self,
        classes: int,
        features: int,
        extract: nn.Module | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        if classes < 1 or features < 1:
            raise ValueError(f"expected at least 1 class and 1 feature, got {classes} and {features}")
        self.extract = nn.Identity() if extract is None else extract
        self.register_buffer("sums", torch.zeros(classes, features, dtype=dtype, device=device))
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64, device=device))

    @property
    def means(self) -> Tensor:
        """The mean of each class, shape (K, D); 0 for a class that was never seen."""
        return self.sums / self.counts.clamp(min=1).unsqueeze(-1)

    @torch.no_grad()
    def add(self, x: Tensor, y: Tensor) -> None:
        """Take examples into the means of their classes.

        Args     x: (B, ...). y: (B,) class numbers, 0 to K - 1.
        Raises   ValueError if x and y differ in length, the features have another size, or a class is out of range.
        """
        found = self._features(x)
        K = len(self.counts)
        if y.shape != found.shape[:1]:
            raise ValueError(f"expected one label an example, got {tuple(y.shape)} for {len(found)} examples")
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < K:
            raise ValueError(f"labels lie in 0 to {K - 1}, got {int(y.min())} to {int(y.max())}")
        self.sums.index_add_(0, y, found.to(self.sums.dtype))
        self.counts += torch.bincount(y, minlength=K)

    def forward(self, x: Tensor) -> Tensor:
        """Return -|f(x) - mu_c|^2 for each class, shape (B, K); -inf for a class that was never seen.

        Args     x: (B, ...).
        Raises   ValueError if the features have another size.
        """
        distances = (self._features(x).unsqueeze(-2) - self.means).square().sum(-1)  # (B, 1, D) - (K, D) -> (B, K)
        return (-distances).masked_fill(self.counts == 0, -math.inf)

    def _features(self, x: Tensor) -> Tensor:
        found = self.extract(x)
        if found.ndim != 2 or found.shape[-1] != self.sums.shape[-1]:
            raise ValueError(f"expected features (B, {self.sums.shape[-1]}), got {tuple(found.shape)}")
        return found
