"""The kinds of numpy arrays that the engine computes with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]  # ids that a graph reads
IndexArray = npt.NDArray[np.intp]  # ids as numpy finds them in logits
