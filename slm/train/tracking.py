"""Sends the figures of a run to tensorboard or wandb, by accelerate."""

from __future__ import annotations

from collections.abc import Mapping

from accelerate import Accelerator

from slm.console.errors import SlmxError
from slm.storage.read_errors import reason_of
from slm.train.plan import TrainSettings


def begin_tracking(accelerator: Accelerator, settings: TrainSettings, plan: Mapping[str, object]) -> None:
    """Starts the trackers that `settings.track` names.

    Args:
        accelerator: The accelerator, which was made with these trackers.
        settings: What the user asks for.
        plan: The numbers of the run, which the trackers keep.

    Raises:
        SlmxError: A tracker refuses, for example because it has no account or no network.
    """
    try:
        accelerator.init_trackers("slmx", dict(plan), {"wandb": {"dir": str(settings.out)}})
    except Exception as error:  # the errors of wandb derive from Exception only
        names = " ".join(f"--track {name}" for name in settings.track)
        raise SlmxError(
            f"{names}: cannot begin ({reason_of(error)}); leave the option out, or for wandb try `wandb login` or "
            "WANDB_MODE=offline"
        ) from error
