"""Checks of this machine (`slmx doctor`) and of a bundle (`slmx verify`), with the plain install."""
