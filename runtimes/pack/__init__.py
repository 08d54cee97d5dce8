"""One file to carry: `slmx pack`, `unpack`, `keygen` and `sign`."""
