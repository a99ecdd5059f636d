"""The losses of an epoch, summed on the device and saved with a state."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

__all__ = ["EpochLosses"]


class EpochLosses:
    """Sum the losses of this process's batches.

    The sums are float32 and taken in the order of the batches, so they are the same bit for bit
    where an epoch is saved and gone on with.

    Args:
        accelerator: accelerator of this process.
        saved: sums of the batches done, as `state` gives them; empty at the start of an epoch.
    """

    def __init__(self, accelerator: Accelerator, saved: Mapping[str, Sequence[float]]) -> None:
        self.accelerator = accelerator
        self.names = tuple(saved)
        mine = [sums[accelerator.process_index] for sums in saved.values()]
        self._sums = torch.tensor(mine or 0.0, device=accelerator.device)
        self._unseen: list[Tensor] = []

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add a batch's losses, shape () each, without waiting for the device."""
        self.names = tuple(losses)
        values = torch.stack([loss.detach().float() for loss in losses.values()])  # (losses,)
        self._sums = self._sums + values
        self._unseen.append(values)

    def check(
        self, epoch: int, batch: int, describe: Callable[[int, int], str], advice: str
    ) -> float:
        """Look at the losses added since the last look; this waits for the device.

        Args:
            epoch: number of the epoch, counted from 1.
            batch: number of the batch added last, counted from 1.
            describe: function that names the images of a batch of an epoch.
            advice: end of the error sentence.

        Returns:
            The total loss of the last batch.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        rows = torch.stack(self._unseen).tolist()  # one per batch
        self._unseen.clear()
        for at, row in enumerate(rows, start=batch - len(rows) + 1):
            if not all(map(math.isfinite, row)):
                values = ", ".join(f"{n} {v:.4g}" for n, v in zip(self.names, row, strict=True))
                raise FloatingPointError(
                    f"losses must be finite; got {values} in epoch {epoch} at batch {at}"
                    f"{describe(epoch, at)}; {advice}"
                )
        return sum(rows[-1])

    def means(self, batches: int) -> dict[str, float]:
        """Mean losses of that many batches of each process, over all processes."""
        means = (self.accelerator.reduce(self._sums, "mean") / batches).tolist()
        return dict(zip(self.names, means, strict=True))

    def state(self) -> dict[str, list[float]]:
        """The sums of each process by name, as plain data."""
        sums = self.accelerator.gather(self._sums[None])  # (processes, losses)
        return dict(zip(self.names, sums.T.tolist(), strict=True))
