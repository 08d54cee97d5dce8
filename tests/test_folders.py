"""Folders appear whole or not at all."""

from __future__ import annotations
