"""Raspberry Pis that qemu emulates: the real aarch64 Python and wheels, our own wheel, and checks that run there."""
