"""What a scheduler does, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SchedulerFigures:
    """What a scheduler does now, and the totals since its start.

    Attributes:
        slots: The most stories that run at the same time.
        running: Stories that run now, and texts that are scored.
        waiting: Stories and texts that wait now.
        prompt_tokens: Ids of prompts and scored texts.
        reused_prompt_tokens: How many of them were copied from another story or prompt instead of read.
        tokens: Ids written.
        steps: Steps of the model.
        stories: Ended stories by finish reason; "error" for those that an error ended.
        cancelled: Stories whose client stopped them.
        alive: Whether the thread of the model runs.
    """

    slots: int
    running: int
    waiting: int
    prompt_tokens: int
    reused_prompt_tokens: int
    tokens: int
    steps: int
    stories: dict[str, int]
    cancelled: int
    alive: bool
