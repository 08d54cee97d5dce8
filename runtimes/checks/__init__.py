"""Checks of this machine (`slmx doctor`) and of a bundle (`slmx verify`). They need no optional packages."""
