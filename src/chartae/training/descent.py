"""One step of gradient descent: the losses of a batch, their gradients, and the optimizers."""

from itertools import chain
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from chartae.errors import ConfigurationError
from chartae.models import Trainable
from chartae.training.batches import Batch, size_of
from chartae.training.engine import Compilation, Hidden, Objective
from chartae.training.optimizers import OptimizerFactory, make_optimizer
from chartae.training.processes import Processes
from chartae.training.state import Plan

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Descent"]


class Descent:
    """The descent of a model's losses, with an optimizer for each group of its parameters.

    Args:
        fabric: launched.
        model: its optimisation groups are the trainable parameters.
        plan: the learning rate, the largest norm of gradients, and the precision.
        optimizer, compile: as in `fit`.

    Attributes:
        objective: the model's losses.
        groups: the trainable parameters of each group, by name.
        unwrapped: the optimizers as they were made.
        optimizers: those that step, by group; with Fabric's wrappers where these are needed.

    Raises:
        ConfigurationError: if the model has no group ``"model"``, or one has nothing to train.
    """

    def __init__(
        self,
        fabric: "Fabric",
        model: Trainable,
        plan: Plan,
        *,
        optimizer: str | OptimizerFactory,
        compile: Compilation,
    ) -> None:
        self.fabric, self.max_norm = fabric, plan.clip_grad_norm
        self.processes = Processes(fabric)
        self.groups = _trainable_groups(model)
        self.objective = Objective(model, compile=compile)
        made = [make_optimizer(optimizer, p, plan.learning_rate) for p in self.groups.values()]
        # Fabric's wrappers cast and synchronise processes; where there is neither to do, they are a
        # detour of some 5 % of a small model's step.
        self.direct = self.processes.alone and plan.precision in (None, "32-true")
        # DDP averages the gradients of one backward pass; opponents have one each.
        self.synchronised = self.processes.alone or len(self.groups) == 1
        if self.synchronised:
            wrapper, *wrapped = fabric.setup(self.objective, *made)
            self.losses = self.objective if self.direct else wrapper
        else:
            fabric.to_device(self.objective)
            wrapped = [fabric.setup_optimizers(one) for one in made]
            self.losses = self.own_losses
        self.unwrapped = made
        self.optimizers = dict(zip(self.groups, made if self.direct else wrapped, strict=True))

    def own_losses(self, batch: Hidden) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses of a batch, without the other processes."""
        with self.fabric.autocast():
            losses: tuple[dict[str, Tensor], Tensor] = self.objective(batch)
        return losses

    def step(self, batch: Batch, size: int) -> Tensor:
        """Update every group of parameters by its own objective; return the values of all terms.

        Args:
            batch: that of this process.
            size: number of samples in the batches of all processes.
        """
        # Before the forward pass, which then finds the memory of the last gradients warm.
        for parameter in chain.from_iterable(self.groups.values()):
            parameter.grad = None
        objectives: dict[str, Tensor]
        values: Tensor
        objectives, values = self.losses(Hidden(batch))
        if not self.processes.alone:
            # Means over samples, not over processes: their batches may differ by a sample.
            share = size_of(batch) * self.processes.count / size
            objectives = {name: share * value for name, value in objectives.items()}
            values = share * values
        for name, parameters in self.groups.items():
            # Opponents share the graph, and each objective moves its own parameters only.
            options: dict[str, Any] = {}
            if len(self.groups) > 1:
                options = {"inputs": parameters, "retain_graph": True}
            if self.direct:
                objectives[name].backward(**options)
            else:
                self.fabric.backward(objectives[name], **options)
        if not self.synchronised:
            for parameters in self.groups.values():
                self.processes.average_gradients(parameters)
        # Only now, for every gradient is taken at the same point.
        for name, optimizer in self.optimizers.items():
            if self.max_norm is not None:
                self._clip(name, optimizer, self.max_norm)
            optimizer.step()
        return values

    def _clip(self, name: str, optimizer: Any, max_norm: float) -> None:
        """Scale down the gradients of a group whose norm is larger."""
        if self.direct:
            nn.utils.clip_grad_norm_(self.groups[name], max_norm)
        else:
            self.fabric.clip_gradients(
                self.losses, optimizer, max_norm=max_norm, error_if_nonfinite=False
            )


def _trainable_groups(model: Trainable) -> dict[str, list[nn.Parameter]]:
    groups = {
        name: [parameter for parameter in parameters if parameter.requires_grad]
        for name, parameters in model.optimization_groups().items()
    }
    if "model" not in groups:
        raise ConfigurationError(
            f"{type(model).__name__}.optimization_groups() has {sorted(groups)}: expected "
            "'model', whose objective is the one that says which epoch is best"
        )
    if empty := [name for name, parameters in groups.items() if not parameters]:
        raise ConfigurationError(f"model has nothing to train in {', '.join(empty)}")
    return groups
