"""One training step: the loss of a batch, its gradients, and the update of the weights."""

from __future__ import annotations

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from slm.console.counted import counted
from slm.console.errors import UsageError
from slm.data.corpus import TokenStream
from slm.model import GPT
from slm.train.plan import Plan
from slm.train.qat import as_exported
from slm.train.windows import batch_at


class ModelWithLoss(nn.Module):
    """The model and its loss in one forward pass, so that torch.compile can fuse the loss into the head.

    Args:
        model: The model.
        teacher: Maps ids to logits as the model does, or None. Its distribution of each next token is the target, in
            place of the text's token (Hinton et al., 2015, arXiv:1503.02531).
        imitates: Whether the teacher is also the target after the first token of a window. Otherwise the target there
            is the text's token. Many models predict the same after the first token, whatever it is, also if it begins
            a text (Xiao et al., 2023, arXiv:2309.17453, "attention sinks").
    """

    def __init__(self, model: GPT, teacher: nn.Module | None, imitates: bool) -> None:
        super().__init__()
        self.model = model
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self.imitates = imitates

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean nats per token, a scalar, for inputs and targets int64 [batch, sequence]."""
        logits = self.model(inputs).flatten(0, 1).float()
        if self.teacher is None:
            return F.cross_entropy(logits, targets.flatten())
        with torch.no_grad():
            wanted = self.teacher(inputs).float().softmax(-1)
            if not self.imitates:
                wanted[:, 0] = F.one_hot(targets[:, 0], wanted.shape[-1]).to(wanted.dtype)
        return F.cross_entropy(logits, wanted.flatten(0, 1))


class Learner:
    """A model in training, with its loss, its optimizers and its batches.

    The batch of a step and its dropout depend on the seed and the step alone.

    Args:
        model: The model, on the accelerator's device.
        plan: The numbers of the run.
        stream: The training text.
        accelerator: The devices and processes.
        optimizers: The optimizers of the model's parameters.
        teacher: The model that the run learns from, or None if it learns the text.
        imitates: As in `ModelWithLoss`.

    Raises:
        SlmxError: The batch cannot be divided into equal parts for the processes and the accumulated parts.
    """

    def __init__(
        self,
        model: GPT,
        plan: Plan,
        stream: TokenStream,
        accelerator: Accelerator,
        optimizers: list[torch.optim.Optimizer],
        teacher: nn.Module | None,
        imitates: bool,
    ) -> None:
        parts = accelerator.num_processes * plan.accumulate
        if plan.batch_size % parts:
            processes = counted(accelerator.num_processes, "process", "processes")
            raise UsageError(
                f"a batch of {plan.batch_size} does not split into {plan.accumulate} accumulated parts "
                f"on {processes}; choose a --batch-size that {parts} divides"
            )
        self.model, self.plan, self.stream, self.accelerator = model, plan, stream, accelerator
        self.part_size = plan.batch_size // parts
        self.optimizers = [accelerator.prepare_optimizer(optimizer) for optimizer in optimizers]
        self.net = accelerator.prepare_model(ModelWithLoss(model, teacher, imitates))

    @property
    def inner_optimizers(self) -> list[torch.optim.Optimizer]:
        """PyTorch's own optimizers, without accelerate's wrapper."""
        return [optimizer.optimizer for optimizer in self.optimizers]

    def compute_gradients(self, step: int) -> tuple[float, float]:
        """Computes the clipped gradients of the batch of a step.

        Returns:
            The mean loss of the whole batch in nats per token, and the gradients' norm before clipping.
        """
        plan, accelerator = self.plan, self.accelerator
        inputs, targets = batch_at(self.stream, self.model.config.block_size, plan.batch_size, plan.seed, step)
        losses = []
        with as_exported(self.model, plan.qat):
            for part in range(plan.accumulate):
                index = part * accelerator.num_processes + accelerator.process_index
                rows = slice(index * self.part_size, (index + 1) * self.part_size)
                torch.manual_seed(_dropout_seed(plan.seed, step, index))
                with accelerator.accumulate(self.net):
                    loss = self.net(inputs[rows].to(accelerator.device), targets[rows].to(accelerator.device))
                    accelerator.backward(loss)
                losses.append(loss.detach())
        norm = accelerator.clip_grad_norm_(self.model.parameters(), plan.grad_clip)
        figures = torch.stack([torch.stack(losses).mean(), norm.detach()])
        mean_loss, mean_norm = accelerator.reduce(figures, "mean").tolist()
        return mean_loss, mean_norm

    def update_weights(self, step: int) -> None:
        """Changes the weights by the gradients, at the learning rate of the step, and clears the gradients."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.plan.learning_rate_at(step)
            optimizer.step()
            optimizer.zero_grad()


def _dropout_seed(seed: int, step: int, part: int) -> int:
    return int(np.random.SeedSequence((seed, step, part)).generate_state(1)[0])
