"""Every reader of files that the fuzzing tries, by name."""

from __future__ import annotations

from tests.reliability.data_readers import DATA_READERS
from tests.reliability.foreign_readers import FOREIGN_READERS
from tests.reliability.model_readers import MODEL_READERS
from tests.reliability.reader import Make

READERS: dict[str, Make] = MODEL_READERS | DATA_READERS | FOREIGN_READERS
