"""A runtime for tests whose package is there and cannot be imported."""

from __future__ import annotations

raise ImportError("libother.so.1:\ncannot open shared object file")
