"""Bundles from a hub and to a hub, and which bundles are on this machine."""
